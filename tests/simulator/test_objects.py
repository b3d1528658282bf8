"""The written form of the simulated cluster's objects."""

from kmproxy.simulator.objects import KINDS, key, node_object


def test_keys():
    """An object's key is its name, with its namespace if it has one."""
    assert key({"metadata": {"name": "a"}}) == "a"
    assert key({"metadata": {"name": "a", "namespace": "b"}}) == "b/a"


def test_a_node_says_where_its_kubelet_is():
    """The port is in `daemonEndpoints`, and the first address is the kubelet's."""
    node = node_object("n", 10250, "127.0.0.2")
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "127.0.0.2"}


def test_kinds():
    """Namespaces and nodes have no namespace, all other kinds do."""
    outside = [name for name, kind in KINDS.items() if not kind.namespaced]
    assert outside == ["namespaces", "nodes"]
