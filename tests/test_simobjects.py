"""The objects of the simulated cluster: as the API server and the kubelet write them."""

from kmproxy.simcadvisor import simulate_node
from kmproxy.simobjects import KINDS, key, node_object, pod_list, pod_object

NODE = simulate_node("node-a", ["payments"], pods_per_namespace=2, started=1000.0)


def test_keys():
    """An object is told from others by its name, in its namespace if it lives in one."""
    assert key({"metadata": {"name": "a"}}) == "a"
    assert key({"metadata": {"name": "a", "namespace": "b"}}) == "b/a"


def test_a_node_says_where_its_kubelet_is():
    """The port is in `daemonEndpoints`; the first address is the kubelet's."""
    node = node_object("n", 10250, "127.0.0.2")
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "127.0.0.2"}


def test_pods_are_those_of_the_metrics():
    """A pod is the same in the kubelet's list and in the API, but for its kind."""
    (first, second) = pod_list(NODE, "127.0.0.2")["items"]
    assert [each["metadata"]["name"] for each in (first, second)] == [
        each.name for each in NODE.pods
    ]
    whole = pod_object(NODE, NODE.pods[0], "127.0.0.2")
    assert whole == {"kind": "Pod", "apiVersion": "v1"} | first
    assert whole["metadata"]["uid"] == NODE.pods[0].uid
    assert whole["spec"]["nodeName"] == "node-a"
    assert whole["status"]["hostIP"] == "127.0.0.2"
    assert whole["status"]["podIP"] == NODE.pods[0].ip


def test_kinds():
    """Namespaces and nodes stand for themselves, all else lives in a namespace."""
    outside = [name for name, kind in KINDS.items() if not kind.namespaced]
    assert outside == ["namespaces", "nodes"]
