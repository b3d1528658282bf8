"""The simulated pods have the form of Pod objects of an API server."""

from __future__ import annotations

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.pods import kubelet_pods, pod_list, pod_object

NODE = simulate_node("node-a", ["default", "payments"], started=1_795_000_000.0)


def test_the_same_node_has_the_same_pods():
    """Nothing is random, and every pod of the node occurs once."""
    objects = kubelet_pods(NODE)
    assert objects == kubelet_pods(NODE)
    assert {each["metadata"]["uid"] for each in objects} == {pod.uid for pod in NODE.pods}
    assert len(objects) == len(NODE.pods)


def test_the_order_says_nothing():
    """The order differs from those of names and metrics, as with a kubelet."""
    names = [each["metadata"]["name"] for each in kubelet_pods(NODE)]
    assert names != sorted(names)
    assert names != [pod.name for pod in NODE.pods]


def test_pods_are_those_of_the_metrics():
    """A pod is equal in the kubelet's list and in the API, except kind and source."""
    listed = {each["metadata"]["uid"]: each for each in kubelet_pods(NODE, "127.0.0.2")}
    for pod in NODE.pods:
        whole, each = pod_object(NODE, pod, "127.0.0.2"), listed[pod.uid]
        annotations = each["metadata"]["annotations"]
        assert annotations.pop("kubernetes.io/config.source") == "api"
        assert annotations.pop("kubernetes.io/config.seen") == each["status"]["startTime"]
        assert whole == {"kind": "Pod", "apiVersion": "v1"} | each
        assert whole["spec"]["nodeName"] == "node-a"
        assert whole["status"]["hostIP"] == "127.0.0.2"
        assert whole["status"]["podIP"] == pod.ip


def test_a_pod_is_consistent():
    """Owner, template hash, containers and their states agree."""
    ports = initialised = 0
    for each in kubelet_pods(NODE):
        metadata, spec, status = each["metadata"], each["spec"], each["status"]
        (owner,) = metadata["ownerReferences"]
        assert metadata["name"].startswith(f"{owner['name']}-")
        assert owner["name"].endswith(f"-{metadata['labels']['pod-template-hash']}")
        assert metadata["creationTimestamp"] == status["startTime"]
        assert status["startTime"].startswith("2026-11-18T")
        assert status["podIPs"] == [{"ip": status["podIP"]}]
        for kind, states in (
            ("containers", "containerStatuses"),
            ("initContainers", "initContainerStatuses"),
        ):
            listed = [(one["name"], one["image"]) for one in spec.get(kind, [])]
            assert listed == [(one["name"], one["image"]) for one in status.get(states, [])]
        ids = [one["containerID"] for one in status["containerStatuses"]]
        assert len(set(ids)) == len(ids)
        ports += sum(len(one.get("ports", [])) for one in spec["containers"])
        initialised += "initContainers" in spec
    assert ports == 2 * len(NODE.pods)
    assert 0 < initialised < len(NODE.pods)


def test_no_pods():
    """A kubelet without pods lists null, as Go encodes an empty list."""
    assert pod_list([])["items"] is None
    assert pod_list([{"a": 1}])["items"] == [{"a": 1}]
