"""The preflight of `kmproxy logs --events`: its permissions, a list of events, and the Lease."""

import json

import pytest
import yaml

from tests.support.event_senders import RIGHTS
from tests.support.preflight import Preflight

FLAGS = (
    "--logs", "--loki-url=http://127.0.0.1:9/loki/api/v1/push", "--source=none", "--events",
)  # fmt: skip


class WithoutNode(Preflight):
    """A preflight whose flags name no node."""

    def flags(self, *more):
        """The flags of a pod."""
        return [f"--service-account-dir={self.directory}", *more]


@pytest.fixture
def preflight(cluster, tmp_path):
    """Runs of the check, for a daemon with the rights for events."""
    for verb, resource in RIGHTS:
        cluster.api.allow(verb, resource)
    for resource in ("nodes/metrics", "nodes/proxy", "nodes/pods"):
        cluster.api.deny("get", resource)
    return WithoutNode(cluster, tmp_path / "sa")


async def test_all_is_well(preflight):
    """No kubelet is asked, and the Lease is not taken."""
    status, shown, _ = await preflight.process(*FLAGS)
    assert status == 0, shown
    assert "list events.events.k8s.io" in shown
    assert "update leases.coordination.k8s.io kmproxy-logs-events in kmproxy" in shown
    assert "kmproxy/kmproxy-logs-events is not there yet" in shown
    assert "nodes/" not in shown
    assert preflight.cluster.api.store.objects["leases"] == {}


async def test_the_holder(preflight):
    """The report tells it."""
    meta = {"name": "other", "namespace": "ops"}
    lease = {"metadata": meta, "spec": {"holderIdentity": "pod-7"}}
    preflight.cluster.api.store.put("leases", lease)
    status, shown, _ = await preflight.process(*FLAGS, "--events-lease=ops/other")
    assert status == 0, shown
    assert "ops/other, held by pod-7" in shown


async def test_missing_permissions(preflight, cluster):
    """The rules to add: for all namespaces, and for kmproxy's own, as narrow as possible."""
    for verb, resource in RIGHTS:
        cluster.api.deny(verb, resource)
    status, shown, _ = await preflight.process(*FLAGS)
    assert status == 1
    _, _, rest = shown.partition("of the ClusterRole of this identity:\n")
    everywhere, _, ours = rest.partition(
        "Add to the rules of the Role of this identity in the namespace kmproxy:\n"
    )
    assert yaml.safe_load(everywhere) == [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list", "watch"]}
    ]
    wanted = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "resourceNames": ["kmproxy-logs-events"], "verbs": ["get", "update"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]  # fmt: skip
    assert yaml.safe_load(ours) == wanted
    _, out, _ = await preflight.process(*FLAGS, "--output=json")
    assert json.loads(out)["role_rules_to_add"] == {"kmproxy": wanted}


async def test_outside_of_a_pod(preflight):
    """The namespace of the Lease has to be given."""
    (preflight.directory / "namespace").unlink()
    status, shown, _ = await preflight.process(*FLAGS)
    assert status == 1
    assert "--events-lease" in shown
    assert "give NAMESPACE/NAME" in shown
