"""What targets say of the workload of their pod, as Prometheus 3.11 spells it, and in plain."""

from __future__ import annotations

import json

import pytest

from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import TargetLabelMap
from tests.support.pods import flat, pod

META = "__meta_kubernetes_pod_"


def target(owner=None, *, labels=None, annotations=None, **how):
    """The labels of the only target of a pod with this owner."""
    metadata = {"labels": labels or {}, "annotations": annotations or {}}
    if owner is not None:
        kind, _, name = owner.partition("/")
        metadata["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
    body = json.dumps({"items": [pod("web-0", metadata=metadata)]}).encode()
    (found,) = flat(parse_pods(body, lambda _: True, **how).render(TargetLabelMap(()).lookup))
    return found


@pytest.mark.parametrize(
    ("owner", "labels", "expected"),
    [
        ("ReplicaSet/web-5d4f", {"pod-template-hash": "5d4f"}, {"deployment": "web"}),
        ("ReplicaSet/web-5d4f", {}, {}),
        ("Job/report-29012345", {}, {"job": "report-29012345", "cronjob": "report"}),
        ("Job/report", {}, {"job": "report"}),
        ("StatefulSet/db", {"pod-template-hash": "5d4f"}, {}),
        ("CronJob/report-29012345", {}, {}),
        (None, {"pod-template-hash": "5d4f"}, {}),
    ],
)
def test_names_of_controllers(owner, labels, expected):
    """`_deployment_name` for a ReplicaSet of one, `_job_name` for any Job, `_cronjob_name`."""
    found = target(owner, labels=labels)
    names = {kind: found.get(f"{META}{kind}_name") for kind in ("deployment", "job", "cronjob")}
    assert {kind: name for kind, name in names.items() if name is not None} == expected
    assert "workload" not in found
    assert "workload_type" not in found


@pytest.mark.parametrize(
    ("owner", "annotations", "expected"),
    [
        ("ReplicaSet/web-5d4f", {}, ("web", "deployment")),
        ("Job/report-29012345", {}, ("report", "cronjob")),
        (None, {}, ("web-0", "barepod")),
        (None, {"kubernetes.io/config.source": "file"}, ("web-0", "staticpod")),
    ],
)
def test_plain_names(owner, annotations, expected):
    """With `--workload` a target has the labels that its pod's samples have."""
    found = target(
        owner, labels={"pod-template-hash": "5d4f"}, annotations=annotations, workloads=True
    )
    assert (found["workload"], found["workload_type"]) == expected


def test_a_controller_without_a_name():
    """An empty value is no label."""
    assert "workload" not in target("StatefulSet/", workloads=True)
