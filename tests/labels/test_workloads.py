"""The workload of a pod, by its controller."""

from __future__ import annotations

import msgspec
import pytest

from kmproxy.kube.pod_list import Owner, PodMeta
from kmproxy.labels.workloads import workload


def of(kind=None, name="", *, hashed=None, source="api", more=()):
    """The workload of the pod web-0 with this controller."""
    labels = msgspec.Raw()
    if hashed is not None:
        labels = msgspec.Raw(msgspec.json.encode({"pod-template-hash": hashed}))
    owners = [*more] if kind is None else [*more, Owner(kind, name, controller=True)]
    return tuple(workload(PodMeta("web-0", "shop", "uid", labels, owners or None), source))


@pytest.mark.parametrize(
    ("kind", "name", "hashed", "expected"),
    [
        ("ReplicaSet", "web-5d4f", "5d4f", ("web", "deployment")),
        ("ReplicaSet", "web-api-5d4f", "5d4f", ("web-api", "deployment")),
        ("ReplicaSet", "web-5d4f-5d4f", "5d4f", ("web-5d4f", "deployment")),
        ("ReplicaSet", "web-5d4f", None, ("web-5d4f", "replicaset")),
        ("ReplicaSet", "web-5d4f", "", ("web-5d4f", "replicaset")),
        ("ReplicaSet", "web-", "", ("web-", "replicaset")),
        ("ReplicaSet", "web-5d4f", "d4f", ("web-5d4f", "replicaset")),
        ("ReplicaSet", "web-5d4f", "5D4F", ("web-5d4f", "replicaset")),
        ("ReplicaSet", "5d4f", "5d4f", ("5d4f", "replicaset")),
        ("ReplicaSet", "-5d4f", "5d4f", ("-5d4f", "replicaset")),
        ("StatefulSet", "web", None, ("web", "statefulset")),
        ("StatefulSet", "web-5d4f", "5d4f", ("web-5d4f", "statefulset")),
        ("DaemonSet", "agent", None, ("agent", "daemonset")),
        ("Job", "report-29012345", None, ("report", "cronjob")),
        ("Job", "report-290123456789", None, ("report", "cronjob")),
        ("Job", "report-2-29012345", None, ("report-2", "cronjob")),
        ("Job", "report-2901234", None, ("report-2901234", "job")),
        ("Job", "report-2901234x", None, ("report-2901234x", "job")),
        ("Job", "report-29012345-x", None, ("report-29012345-x", "job")),
        ("Job", "report-٢٩٠١٢٣٤٥", None, ("report-٢٩٠١٢٣٤٥", "job")),
        ("Job", "report29012345", None, ("report29012345", "job")),
        ("Job", "29012345", None, ("29012345", "job")),
        ("Job", "-29012345", None, ("-29012345", "job")),
        ("Node", "node-a", None, ("web-0", "staticpod")),
        ("Workflow", "w-12345678", None, ("w-12345678", "workflow")),
        ("SparkApplication", "s", "s", ("s", "sparkapplication")),
        ("ReplicationController", "r-5d4f", "5d4f", ("r-5d4f", "replicationcontroller")),
    ],
)
def test_by_the_controller(kind, name, hashed, expected):
    """Each kind of controller, and names that only look like those of a controller's own."""
    assert of(kind, name, hashed=hashed) == expected


@pytest.mark.parametrize("source", ["file", "http"])
@pytest.mark.parametrize("kind", [None, "Node", "ReplicaSet"])
def test_a_static_pod(kind, source):
    """A pod that the kubelet has from a file or a URL is one, whatever it says of itself."""
    assert of(kind, "web-5d4f", hashed="5d4f", source=source) == ("web-0", "staticpod")


@pytest.mark.parametrize(
    "owners",
    [(), (Owner("ReplicaSet", "web-5d4f"),), (Owner("Job", "j", controller=False),)],
)
def test_a_pod_without_a_controller(owners):
    """Owners that are not the controller do not count."""
    assert of(hashed="5d4f", more=owners) == ("web-0", "barepod")


def test_a_controller_among_owners():
    """The controller counts wherever it stands; of two, the first."""
    others = (Owner("Node", "n"), Owner("StatefulSet", "db", controller=True))
    assert of("DaemonSet", "agent", more=others) == ("db", "statefulset")
