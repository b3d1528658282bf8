"""Pods and nodes to targets: labels to the letter, addresses, and order."""

from __future__ import annotations

import json

import pytest

from kmproxy.config.label_rules import parse_rules
from kmproxy.discovery.nodes import ListedNode, NodeDocument
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap
from tests.support.pod_targets import SEEN, SOURCE, label_map, of
from tests.support.pods import container, flat, pod, port

META = "__meta_kubernetes_"


def found(*pods, wanted=lambda _: True, labels=None):
    """The target groups of these pods, with `__address__` among the labels."""
    body = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": list(pods)}).encode()
    document = parse_pods(body, wanted).render((labels or label_map()).lookup)
    return flat(document)


def test_all_labels_of_a_target():
    """Every documented label of discovery.kubelet, the namespace's and the rules' labels."""
    owners = [
        {"kind": "Node", "name": "n", "apiVersion": "v1", "uid": "1"},
        {"kind": "ReplicaSet", "name": "web-abc", "controller": True},
    ]
    given = pod(
        "web-abc-1",
        containers=[container("web", port(8080, "http"))],
        metadata={
            "labels": {"app.kubernetes.io/name": "web"},
            "annotations": {"prometheus.io/port": "8080"},
            "ownerReferences": owners,
        },
        conditions=[
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
        ],
        containerStatuses=[
            {"name": "other", "containerID": "containerd://0"},
            {"name": "web", "containerID": "containerd://1"},
        ],
    )
    space = ObjectMeta("shop", {"team": "blue", "a.b/c": ""}, {"owner": "me@example.com"})
    (target,) = found(given, labels=label_map(space))
    assert target == {
        "__address__": "10.0.0.1:8080",
        "__meta_kubernetes_namespace": "shop",
        "__meta_kubernetes_namespace_label_team": "blue",
        "__meta_kubernetes_namespace_labelpresent_team": "true",
        "__meta_kubernetes_namespace_label_a_b_c": "",
        "__meta_kubernetes_namespace_labelpresent_a_b_c": "true",
        "__meta_kubernetes_namespace_annotation_owner": "me@example.com",
        "__meta_kubernetes_namespace_annotationpresent_owner": "true",
        "__meta_kubernetes_pod_name": "web-abc-1",
        "__meta_kubernetes_pod_ip": "10.0.0.1",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "web",
        "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_name": "true",
        "__meta_kubernetes_pod_annotation_prometheus_io_port": "8080",
        "__meta_kubernetes_pod_annotationpresent_prometheus_io_port": "true",
        "__meta_kubernetes_pod_container_init": "false",
        "__meta_kubernetes_pod_container_name": "web",
        "__meta_kubernetes_pod_container_id": "containerd://1",
        "__meta_kubernetes_pod_container_image": "web:1",
        "__meta_kubernetes_pod_container_port_name": "http",
        "__meta_kubernetes_pod_container_port_number": "8080",
        "__meta_kubernetes_pod_container_port_protocol": "TCP",
        "__meta_kubernetes_pod_ready": "true",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_node_name": "node-a",
        "__meta_kubernetes_pod_host_ip": "192.0.2.1",
        "__meta_kubernetes_pod_uid": "uid-web-abc-1",
        "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
        "__meta_kubernetes_pod_controller_name": "web-abc",
        "team": "blue",
    }


def test_a_target_per_port():
    """Each port of each container is a target. Without ports the target is the bare IP."""
    targets = found(
        pod(containers=[container("a", port(80, "http"), port(9090)), container("b"), container("c", port(1))])
    )  # fmt: skip
    assert [target["__address__"] for target in targets] == [
        "10.0.0.1:80",
        "10.0.0.1:9090",
        "10.0.0.1",
        "10.0.0.1:1",
    ]
    names = [target["__meta_kubernetes_pod_container_name"] for target in targets]
    assert names == ["a", "a", "b", "c"]
    assert of(targets[1], "pod_container_port_") == {
        "name": "",
        "number": "9090",
        "protocol": "TCP",
    }
    assert of(targets[2], "pod_container_port_") == {}


@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
def test_other_protocols(protocol):
    """A port of another protocol is a target, with that protocol as label."""
    (target,) = found(pod(containers=[container("dns", port(53, "dns", protocol))]))
    assert target["__address__"] == "10.0.0.1:53"
    assert target["__meta_kubernetes_pod_container_port_protocol"] == protocol


def test_ipv6():
    """An IPv6 address has brackets before a port, and none without one, as in Go."""
    containers = [container("a", port(80)), container("b")]
    targets = found(pod(containers=containers, podIP="fd00::1", hostIP="fd00::2"))
    assert [target["__address__"] for target in targets] == ["[fd00::1]:80", "fd00::1"]
    assert {target["__meta_kubernetes_pod_ip"] for target in targets} == {"fd00::1"}
    assert {target["__meta_kubernetes_pod_host_ip"] for target in targets} == {"fd00::2"}


@pytest.mark.parametrize("status", [{"podIP": ""}, {"podIP": "", "phase": "Pending"}])
def test_a_pod_without_an_ip(status):
    """A pod without an IP is starting or evicted, and is no target."""
    assert found(pod(**status)) == []
    without = pod()
    del without["status"]["podIP"]
    assert found(without, {"metadata": {"name": "x", "namespace": "y"}}) == []


def test_a_host_network_pod():
    """Ports of a host-network pod are targets at the node's IP."""
    given = pod(podIP="192.0.2.1", spec={"hostNetwork": True})
    (target,) = found(given)
    assert target["__address__"] == "192.0.2.1:8080"
    assert target["__meta_kubernetes_pod_ip"] == target["__meta_kubernetes_pod_host_ip"]


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Failed", "Unknown"])
def test_phases(phase):
    """A pod with an IP is a target in every phase. Relabelling selects the phases."""
    (target,) = found(pod(phase=phase))
    assert target["__meta_kubernetes_pod_phase"] == phase


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], "true"),
        ([{"type": "Ready", "status": "False"}], "false"),
        ([{"type": "Ready", "status": "Unknown"}], "unknown"),
        ([{"type": "ContainersReady", "status": "True"}], "unknown"),
        (None, "unknown"),
    ],
)
def test_ready(conditions, ready):
    """The label has the condition in lower case, or unknown without one."""
    (target,) = found(pod(conditions=conditions))
    assert target["__meta_kubernetes_pod_ready"] == ready


def test_init_and_ephemeral_containers():
    """Init containers follow the others, with their own status. Ephemeral ones are no targets."""
    given = pod(
        spec={
            "initContainers": [container("init"), container("side", port(9000))],
            "ephemeralContainers": [container("debugger", port(1))],
        },
        containerStatuses=[{"name": "web", "containerID": "containerd://w"}],
        initContainerStatuses=[
            {"name": "side", "containerID": "containerd://s"},
            {"name": "side", "containerID": "containerd://second"},
            {"name": "web", "containerID": "containerd://not-this"},
        ],
        ephemeralContainerStatuses=[{"name": "debugger", "containerID": "containerd://d"}],
    )
    assert [
        (target["__address__"], of(target, "pod_container_init")[""], of(target, "pod_container_id")[""])
        for target in found(given)
    ] == [
        ("10.0.0.1:8080", "false", "containerd://w"),
        ("10.0.0.1", "true", ""),
        ("10.0.0.1:9000", "true", "containerd://s"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([{"kind": "Node", "name": "n"}], {}),
        ([{"kind": "Node", "name": "n", "controller": False}], {}),
        ([{"kind": "Job", "name": "j", "controller": True}], {"kind": "Job", "name": "j"}),
        ([{"kind": "", "name": "j", "controller": True}], {"name": "j"}),
        (
            [
                {"kind": "A", "name": "a", "controller": True},
                {"kind": "B", "name": "b", "controller": True},
            ],
            {"kind": "A", "name": "a"},
        ),
    ],
)
def test_the_controller(owners, expected):
    """The first owner with controller set. The node as owner of a static pod does not count."""
    (target,) = found(pod(metadata={"ownerReferences": owners}))
    assert of(target, "pod_controller_") == expected


def test_names_that_collide():
    """Of two keys with the same label name the first in sorted order is kept."""
    pairs = [("a.b", "dot"), ("a-b", "dash"), ("a_b", "underscore"), ("é", "one"), ("1/x", "digit")]
    for labels in (dict(pairs), dict(reversed(pairs))):
        (target,) = found(pod(metadata={"labels": labels, "annotations": labels}))
        for kind in ("label", "annotation"):
            assert of(target, f"pod_{kind}_") == {"a_b": "dash", "_": "one", "1_x": "digit"}
            assert of(target, f"pod_{kind}present_") == {"a_b": "true", "_": "true", "1_x": "true"}


def test_a_hundred_annotations():
    """Every target of the pod has all of them, with any contents."""
    nasty = 'quote " backslash \\ newline \n tab \t null \0 é \U0001f600 </script>'
    annotations = {f"example.com/key-{n}": f"{nasty}{n}" for n in range(100)}
    targets = found(
        pod(metadata={"annotations": annotations}, containers=[container("a", port(1), port(2))])
    )
    assert len(targets) == 2
    for target in targets:
        assert of(target, "pod_annotation_") == {
            f"example_com_key_{n}": f"{nasty}{n}" for n in range(100)
        }
        assert len(of(target, "pod_annotationpresent_")) == 100


def test_the_order_is_stable():
    """Targets are sorted by namespace and name, whatever order the kubelet has."""
    pods = [pod(name, metadata={"namespace": space}) for space in "ba" for name in ("x", "w", "y")]
    first, second = found(*pods), found(*reversed(pods))
    assert [list(target.items()) for target in first] == [list(t.items()) for t in second]
    where = [(t["__meta_kubernetes_namespace"], t["__meta_kubernetes_pod_name"]) for t in first]
    assert where == [(space, name) for space in "ab" for name in "wxy"]


def test_only_wanted_namespaces():
    """Unwanted namespaces are not held, and a request can select fewer."""
    pods = [pod("p", metadata={"namespace": space}) for space in ("shop", "shop-2", "bank")]
    assert len(found(*pods, wanted=lambda name: name.startswith("shop"))) == 2
    body = json.dumps({"items": pods}).encode()
    held = parse_pods(body, lambda name: name != "bank")
    assert held.count == 2
    less = flat(held.render(label_map().lookup, lambda name: name in {"bank", "shop-2"}))
    assert [target["__meta_kubernetes_namespace"] for target in less] == ["shop-2"]


@pytest.mark.parametrize("source", ["api", "file", "http"])
def test_what_the_kubelet_notes_for_itself(source):
    """The kubelet's own annotations make no label, because a restart changes them."""
    first, second = (
        found(pod(metadata={"annotations": {SEEN: when, SOURCE: source, "a": "b"}}))
        for when in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    )
    assert first == second
    assert of(first[0], "pod_annotation") == {"_a": "b", "present_a": "true"}


@pytest.mark.parametrize(
    ("source", "owners", "expected"),
    [
        ("file", [], {"kind": "Node", "name": "node-a"}),
        ("http", [], {"kind": "Node", "name": "node-a"}),
        ("api", [], {}),
        ("api", [{"kind": "Job", "name": "j", "controller": True}], {"kind": "Job", "name": "j"}),
        ("file", [{"kind": "A", "name": "a", "controller": True}], {"kind": "A", "name": "a"}),
    ],
)
def test_the_controller_of_a_static_pod(source, owners, expected):
    """The controller is the node, as in the API server's mirror pod."""
    metadata = {"annotations": {SOURCE: source}, "ownerReferences": owners}
    (target,) = found(pod(metadata=metadata))
    assert of(target, "pod_controller_") == expected


@pytest.mark.parametrize("items", [b"[]", b"null"])
def test_nothing_is_an_empty_list(items):
    """A kubelet without pods lists null. Prometheus gets `[]`."""
    held = parse_pods(b'{"kind":"PodList","items":%b}' % items, lambda _: True)
    assert json.loads(held.render(label_map().lookup)) == []
    assert (held.count, held.size) == (0, 0)


def test_the_map_of_target_labels():
    """The target map follows the label map: defaults, `*`, retention and readiness."""
    labels = TargetLabelMap(parse_rules(["*"], [], ["team=nobody"])[0], retention=10.0)
    assert not labels.loaded
    labels.replace([ObjectMeta("shop", {"team": "blue", "kubernetes.io/metadata.name": "shop"})], 0)
    assert labels.loaded

    def pairs(name):
        return json.loads(b'{"":0%b}' % labels.lookup(name))

    assert pairs(b"shop") == {
        "": 0,
        "__meta_kubernetes_namespace_label_kubernetes_io_metadata_name": "shop",
        "__meta_kubernetes_namespace_labelpresent_kubernetes_io_metadata_name": "true",
        "__meta_kubernetes_namespace_label_team": "blue",
        "__meta_kubernetes_namespace_labelpresent_team": "true",
        "team": "blue",
    }
    assert pairs(b"unknown") == {"": 0, "team": "nobody"}
    labels.put(ObjectMeta("shop", {"team": 'g"reen\n'}))
    assert pairs(b"shop")["team"] == 'g"reen\n'
    labels.delete("shop", 1.0)
    labels.expire(10.9)
    assert pairs(b"shop")["team"] == 'g"reen\n'
    labels.expire(11.0)
    assert pairs(b"shop")["team"] == "nobody"


def test_no_rules_no_labels():
    """A namespace without metadata adds no label and no comma."""
    labels = label_map(ObjectMeta("shop"), rules=())
    assert labels.lookup(b"shop") == b""
    assert len(found(pod(), labels=labels)) == 1


def test_the_rules_make_the_same_labels_as_on_samples():
    """A target has the same rule labels as its container's samples."""
    rules, problems = parse_rules(["team", "x/y=cost"], ["*"], ["cost=none"])
    assert not problems
    space = ObjectMeta("shop", {"team": "blue"}, {"note": "n", "mail": 'a"b'})
    (target,) = found(
        pod(), labels=label_map(space, rules=["team", "x/y=cost"], defaults=["cost=none"])
    )
    plain = {key: value for key, value in target.items() if not key.startswith("__")}
    samples, targets = LabelMap(rules), TargetLabelMap(rules)
    targets.put(space)
    made = json.loads(b'{"":0%b}' % targets.lookup(b"shop"))
    own = {key: value for key, value in made.items() if key and not key.startswith("__")}
    assert plain == {"team": "blue", "cost": "none"}
    assert samples.renderer.choose(space).pairs == own == plain | {"mail": 'a"b', "note": "n"}


def test_nodes():
    """One target per node, sorted by name, at one address, with a path each."""
    nodes = [
        ListedNode.of("node-b", {"topology.kubernetes.io/zone": "z"}, {"a": "1"}),
        ListedNode.of("node-a"),
    ]
    first, second = flat(b"".join(NodeDocument(nodes, "kmproxy:8080", lambda name: f"/of/{name}")))
    assert first == {
        "__address__": "kmproxy:8080",
        "__metrics_path__": "/of/node-a",
        "__meta_kubernetes_node_name": "node-a",
        "instance": "node-a",
        "node": "node-a",
    }
    assert second["__metrics_path__"] == "/of/node-b"
    assert of(second, "node_") == {
        "name": "node-b",
        "label_topology_kubernetes_io_zone": "z",
        "labelpresent_topology_kubernetes_io_zone": "true",
        "annotation_a": "1",
        "annotationpresent_a": "true",
    }
    assert json.loads(b"".join(NodeDocument([], "kmproxy", str))) == []
