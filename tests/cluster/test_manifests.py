"""The shipped manifests in a real API server: strict validation, and admission of their pods."""

from __future__ import annotations

import pytest

from tests.support.overlays import built, pairs

from .control_plane import RESOURCES, RequestError
from .objects import WORKLOADS, admit, apply, pods, remove

pytestmark = [pytest.mark.cluster]


@pytest.mark.parametrize(("overlay", "components"), list(pairs()))
def test_it_is_accepted(plane, overlay, components):
    """All objects are accepted, and the pods pass in a namespace that enforces `restricted`."""
    objects = built(overlay, components)
    (space,) = [one for one in objects if one["kind"] == "Namespace"]
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    apply(plane, objects)
    assert admit(plane, objects)
    remove(plane, objects)


def test_a_pod_with_more_rights_is_refused(plane):
    """The same pod with a privilege is refused, so the namespace does enforce."""
    objects = built("daemonset")
    apply(plane, objects)
    (pod,) = pods(objects)
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(RequestError, match="restricted"):
        plane.apply(pod, dry_run=True)
    remove(plane, objects)


def test_an_unknown_field_is_refused(plane):
    """A misspelt field is an error, so the validation is strict."""
    (daemons,) = [one for one in built("daemonset") if one["kind"] == "DaemonSet"]
    daemons["spec"]["template"]["spec"]["hostNetwrk"] = True
    with pytest.raises(RequestError, match="hostNetwrk"):
        plane.apply(daemons, dry_run=True)
    assert set(RESOURCES) >= WORKLOADS
