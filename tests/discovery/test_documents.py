"""Pods to targets: labels to the letter, addresses, order; and every recorded list of pods."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import yaml

from kmproxy.config.label_rules import LAST_APPLIED, Namespace, parse_rules
from kmproxy.discovery.documents import MAX_LIST, MAX_POD
from kmproxy.discovery.nodes import ListedNode, NodeDocument, NodeList
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import MAX_METADATA, TargetLabelMap
from kmproxy.errors import UpstreamError
from kmproxy.labels.label_map import LabelMap
from tests.support.pods import container, flat, pod, port

META = "__meta_kubernetes_"


def label_map(*namespaces, rules=("team",), defaults=()):
    """The labels of targets as these namespaces have them."""
    labels = TargetLabelMap(parse_rules(rules, (), defaults)[0])
    labels.replace(namespaces, 0.0)
    return labels


def found(*pods, wanted=lambda _: True, labels=None):
    """The target groups of these pods, with `__address__` among their labels."""
    body = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": list(pods)}).encode()
    document = parse_pods(body, wanted).render((labels or label_map()).lookup)
    return flat(document)


def of(target, prefix):
    """The labels of a target whose names begin so, without it."""
    start = META + prefix
    return {
        key.removeprefix(start): value for key, value in target.items() if key.startswith(start)
    }


def test_all_labels_of_a_target():
    """Each label that discovery.kubelet documents, the namespace's, and the rules' own."""
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
    space = Namespace("shop", {"team": "blue", "a.b/c": ""}, {"owner": "me@example.com"})
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
    """Each port of each container is one; a container without ports is one with the bare IP."""
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
    """A port of another protocol is a target like any, and says so."""
    (target,) = found(pod(containers=[container("dns", port(53, "dns", protocol))]))
    assert target["__address__"] == "10.0.0.1:53"
    assert target["__meta_kubernetes_pod_container_port_protocol"] == protocol


def test_ipv6():
    """An IPv6 address stands in brackets before a port, and bare without one, as Go joins them."""
    containers = [container("a", port(80)), container("b")]
    targets = found(pod(containers=containers, podIP="fd00::1", hostIP="fd00::2"))
    assert [target["__address__"] for target in targets] == ["[fd00::1]:80", "fd00::1"]
    assert {target["__meta_kubernetes_pod_ip"] for target in targets} == {"fd00::1"}
    assert {target["__meta_kubernetes_pod_host_ip"] for target in targets} == {"fd00::2"}


@pytest.mark.parametrize("status", [{"podIP": ""}, {"podIP": "", "phase": "Pending"}])
def test_a_pod_without_an_ip(status):
    """It is starting or was evicted: no target."""
    assert found(pod(**status)) == []
    without = pod()
    del without["status"]["podIP"]
    assert found(without, {"metadata": {"name": "x", "namespace": "y"}}) == []


def test_a_host_network_pod():
    """Its IP is the node's: its ports are targets there, like any other's."""
    given = pod(podIP="192.0.2.1", spec={"hostNetwork": True})
    (target,) = found(given)
    assert target["__address__"] == "192.0.2.1:8080"
    assert target["__meta_kubernetes_pod_ip"] == target["__meta_kubernetes_pod_host_ip"]


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Failed", "Unknown"])
def test_phases(phase):
    """A pod that has an IP is a target in every phase: relabelling says which are wanted."""
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
    """The condition in lower case; unknown where there is none."""
    (target,) = found(pod(conditions=conditions))
    assert target["__meta_kubernetes_pod_ready"] == ready


def test_init_and_ephemeral_containers():
    """Init containers come after the others, with their own status; ephemeral ones are none."""
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
            [{"kind": "A", "name": "a", "controller": True}, {"kind": "B", "controller": True}],
            {"kind": "A", "name": "a"},
        ),
    ],
)
def test_the_controller(owners, expected):
    """The first owner that is the controller; a static pod's owner, its node, is none."""
    (target,) = found(pod(metadata={"ownerReferences": owners}))
    assert of(target, "pod_controller_") == expected


def test_names_that_collide():
    """Of two keys that become one name the first in sorted order is kept, whatever comes first."""
    pairs = [("a.b", "dot"), ("a-b", "dash"), ("a_b", "underscore"), ("é", "one"), ("1/x", "digit")]
    for labels in (dict(pairs), dict(reversed(pairs))):
        (target,) = found(pod(metadata={"labels": labels, "annotations": labels}))
        for kind in ("label", "annotation"):
            assert of(target, f"pod_{kind}_") == {"a_b": "dash", "_": "one", "1_x": "digit"}
            assert of(target, f"pod_{kind}present_") == {"a_b": "true", "_": "true", "1_x": "true"}


def test_a_hundred_annotations():
    """All of them are there, on every target of the pod, whatever is in them."""
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
    """It is that of namespaces and names, whatever order the kubelet lists the pods in."""
    pods = [pod(name, metadata={"namespace": space}) for space in "ba" for name in ("x", "w", "y")]
    first, second = found(*pods), found(*reversed(pods))
    assert [list(target.items()) for target in first] == [list(t.items()) for t in second]
    where = [(t["__meta_kubernetes_namespace"], t["__meta_kubernetes_pod_name"]) for t in first]
    assert where == [(space, name) for space in "ab" for name in "wxy"]


def test_only_wanted_namespaces():
    """What is not wanted is not held, and a request can want less."""
    pods = [pod("p", metadata={"namespace": space}) for space in ("shop", "shop-2", "bank")]
    assert len(found(*pods, wanted=lambda name: name.startswith("shop"))) == 2
    body = json.dumps({"items": pods}).encode()
    held = parse_pods(body, lambda name: name != "bank")
    assert held.count == 2
    less = flat(held.render(label_map().lookup, lambda name: name in {"bank", "shop-2"}))
    assert [target["__meta_kubernetes_namespace"] for target in less] == ["shop-2"]


SEEN, SOURCE = "kubernetes.io/config.seen", "kubernetes.io/config.source"


@pytest.mark.parametrize("source", ["api", "file", "http"])
def test_what_the_kubelet_notes_for_itself(source):
    """No label is made of it: a kubelet that restarts has seen every pod at another time."""
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
    """Its node, as its mirror in the API server has it."""
    metadata = {"annotations": {SOURCE: source}, "ownerReferences": owners}
    (target,) = found(pod(metadata=metadata))
    assert of(target, "pod_controller_") == expected


@pytest.mark.parametrize("items", [b"[]", b"null"])
def test_nothing_is_an_empty_list(items):
    """A kubelet without pods lists null; Prometheus wants `[]`."""
    held = parse_pods(b'{"kind":"PodList","items":%b}' % items, lambda _: True)
    assert json.loads(held.render(label_map().lookup)) == []
    assert (held.count, held.size) == (0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b'{"items":{}}',
        b'{"items":[{}]}',
        b'{"items":[null]}',
        b'{"items":[{"metadata":{"name":"a"},"status":{"podIP":7}}]}',
        b'{"items":[{"metadata":{"name":"a","labels":{"k":1}}}]}',
        b'{"items":[{"metadata":{"name":"a"}}]',
        b'{"items":[{"metadata":{"name":"\xff"}}]}',
        b'{"items":[{"metadata":{"name":"\\ud800"}}]}',
        b'{"kind":"Status","status":"Failure","code":500}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_list_of_pods(body):
    """It is refused as a whole, and never taken for a node without pods."""
    with pytest.raises(UpstreamError) as caught:
        parse_pods(body, lambda _: True)
    assert caught.value.reason == "garbage"


def test_the_size_is_what_is_held():
    """The bytes of a list grow with its pods, and count those of its labels."""
    one = parse_pods(json.dumps({"items": [pod()]}).encode(), lambda _: True)
    two = parse_pods(json.dumps({"items": [pod(), pod("web-1")]}).encode(), lambda _: True)
    assert two.size == 2 * one.size
    large = pod(metadata={"annotations": {"a": "x" * 4000, "b": "x" * 4000}})
    assert parse_pods(json.dumps({"items": [large]}).encode(), lambda _: True).size > 8000


def listed(*pods):
    """The targets of a list of these pods."""
    return parse_pods(json.dumps({"items": pods}).encode(), lambda _: True)


def test_long_values_of_pods():
    """A value of over 4 KiB is left out, its mark is there, and it is counted; so with `é`."""
    values = {"a": "x" * 4096, "b": "x" * 4097, "c": "é" * 2049, LAST_APPLIED: "x" * 250_000}
    held = listed(pod(metadata={"annotations": values}))
    (target,) = flat(held.render(label_map().lookup))
    assert of(target, "pod_annotation_") == {"a": "x" * 4096}
    assert len(of(target, "pod_annotationpresent_")) == 4
    assert held.left_out["value"] == 3


def test_many_values_of_a_pod():
    """Together they take 32 KiB at most, the first in sorted order; labels go before annotations."""
    values = {f"k{n:02}": "x" * 4000 for n in range(20)}
    held = listed(pod(metadata={"annotations": values, "labels": {"z": "1"}}))
    (target,) = flat(held.render(label_map().lookup))
    assert list(of(target, "pod_annotation_")) == [f"k{n:02}" for n in range(8)]
    assert of(target, "pod_label_") == {"z": "1"}
    assert held.left_out["pod"] >= 12
    assert held.size < MAX_METADATA + 1000


def test_many_targets_of_a_pod():
    """30,000 ports: the first ones, as many as 1 MiB has with what each repeats of the pod."""
    ports = [port(number) for number in range(1, 30_000)]
    held = listed(pod(containers=[container("a", *ports)]), pod("web-1"))
    assert held.count + held.left_out["targets"] == len(ports) + 1
    assert MAX_POD // 2 < len(held.render(label_map().lookup)) < MAX_POD + 10_000
    assert len(held.pods) == 2


def test_many_large_pods():
    """The largest are left out, in whatever order they are listed; the small ones are all there."""
    fat = {f"k{n:02}": "x" * 4000 for n in range(8)}
    large = [pod(f"large-{n:03}", metadata={"annotations": fat}) for n in range(300)]
    small = [pod(f"small-{n:03}") for n in range(250)]
    held = listed(*large, *small)
    names = [target["__meta_kubernetes_pod_name"] for target in flat(held.render(lambda _: b""))]
    assert sum(name.startswith("small") for name in names) == 250
    assert 100 < len(names) - 250 < 300
    assert held.left_out["list"] == 550 - len(names)
    assert held.size < MAX_LIST
    again = listed(*reversed(small), *reversed(large))
    assert again.pods == held.pods


def test_pods_that_cannot_be_told_apart():
    """Two of one name, identity and size are two pods, whatever kubelet lists them so."""
    twins = [pod("twin", containers=[container(name, port(8080))]) for name in ("x1", "x2")]
    assert len(flat(listed(*twins).render(lambda _: b""))) == 2


def test_a_long_document(monkeypatch):
    """What namespaces add is counted in: the pods with the most bytes are left out."""
    held = listed(*(pod(f"p{n}", metadata={"namespace": f"n{n % 2}"}) for n in range(10)))
    monkeypatch.setattr("kmproxy.discovery.documents.MAX_DOCUMENT", 20_000)
    added = {b"n0": b',"k":"%b"' % (b"x" * 5000), b"n1": b""}
    document = held.document(added.get)
    targets = flat(b"".join(document))
    assert len(b"".join(document)) <= 20_000
    assert len(targets) + document.left_out == 10
    assert {"p1", "p3", "p5", "p7", "p9"} <= {t["__meta_kubernetes_pod_name"] for t in targets}


def test_nodes_with_much_metadata(monkeypatch):
    """A value and a node have their bytes; beyond those of all the largest nodes have none."""
    node = ListedNode.of("a", {"k": "v"}, {"b": "x" * 5000, "c": "x" * 4000})
    assert set(node.labels()) == {
        f"__meta_kubernetes_node_{name}"
        for name in ("label_k", "labelpresent_k", "annotation_c", "annotationpresent_c")
    }
    monkeypatch.setattr("kmproxy.discovery.nodes.MAX_NODES", 4000)
    nodes = NodeList()
    for each in (node, ListedNode.of("b", {"k": "v"}), ListedNode.of("c")):
        nodes.add(each)
    assert [bool(each.labels()) for each in nodes.finish()] == [False, True, False]


def test_the_map_of_target_labels():
    """It follows the label map's rules: defaults, `*`, retention; and says when it is loaded."""
    labels = TargetLabelMap(parse_rules(["*"], [], ["team=nobody"])[0], retention=10.0)
    assert not labels.loaded
    labels.replace([Namespace("shop", {"team": "blue", "kubernetes.io/metadata.name": "shop"})], 0)
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
    labels.put(Namespace("shop", {"team": 'g"reen\n'}))
    assert pairs(b"shop")["team"] == 'g"reen\n'
    labels.delete("shop", 1.0)
    labels.expire(10.9)
    assert pairs(b"shop")["team"] == 'g"reen\n'
    labels.expire(11.0)
    assert pairs(b"shop")["team"] == "nobody"


def test_no_rules_no_labels():
    """A namespace without metadata adds nothing, and no comma too many."""
    labels = label_map(Namespace("shop"), rules=())
    assert labels.lookup(b"shop") == b""
    assert len(found(pod(), labels=labels)) == 1


def test_the_rules_make_the_same_labels_as_on_samples():
    """A target's plain labels are those that the container's samples get."""
    rules, problems = parse_rules(["team", "x/y=cost"], ["*"], ["cost=none"])
    assert not problems
    space = Namespace("shop", {"team": "blue"}, {"note": "n", "mail": 'a"b'})
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
    """One target per node in the order of names, at one address, each at its own path."""
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


# What a label has to be, read off the pod object by its path in it. `c` is the container, `s` its
# status, `p` its port.
PATHS = {
    "namespace": "metadata.namespace",
    "pod_name": "metadata.name",
    "pod_uid": "metadata.uid",
    "pod_ip": "status.podIP",
    "pod_host_ip": "status.hostIP",
    "pod_phase": "status.phase",
    "pod_node_name": "spec.nodeName",
    "pod_container_name": "c.name",
    "pod_container_image": "c.image",
    "pod_container_id": "s.containerID",
    "pod_container_port_name": "p.name",
    "pod_container_port_number": "p.containerPort",
    "pod_container_port_protocol": "p.protocol",
}


def at(document, path):
    """What is at a dotted path, as text; empty where there is nothing."""
    for key in path.split("."):
        document = (document or {}).get(key)
    return "" if document is None else str(document)


def expected_labels(given, owner, space):
    """The labels of one target, from the pod, the part of it that it is of, and the namespace."""
    labels = {
        META + name: at(given | owner, path)
        for name, path in PATHS.items()
        if not path.startswith("p.") or owner["p"]
    }
    ready = [c["status"] for c in given["status"]["conditions"] if c["type"] == "Ready"]
    labels[f"{META}pod_ready"] = {"True": "true", "False": "false"}[ready[0]]
    labels[f"{META}pod_container_init"] = str(owner["init"]).lower()
    for each in given["metadata"].get("ownerReferences", []):
        if each.get("controller"):
            labels[f"{META}pod_controller_kind"] = each["kind"]
            labels[f"{META}pod_controller_name"] = each["name"]
            hashed = given["metadata"].get("labels", {}).get("pod-template-hash")
            if each["kind"] == "ReplicaSet" and each["name"].endswith(f"-{hashed}"):
                labels[f"{META}pod_deployment_name"] = each["name"][: -len(hashed) - 1]
            if each["kind"] == "Job":
                labels[f"{META}pod_job_name"] = each["name"]
                if scheduled := re.fullmatch(r"(.+)-\d{8,}", each["name"], re.ASCII):
                    labels[f"{META}pod_cronjob_name"] = scheduled[1]
    own = {key: dict(given["metadata"].get(key) or {}) for key in ("labels", "annotations")}
    added = {
        key: own["annotations"].pop(key) for key in (SEEN, SOURCE) if key in own["annotations"]
    }
    if added.get(SOURCE) == "file":
        labels[f"{META}pod_controller_kind"] = "Node"
        labels[f"{META}pod_controller_name"] = given["spec"]["nodeName"]
    for role, metadata in (("pod", own), ("namespace", space["metadata"])):
        for kind in ("label", "annotation"):
            for key, value in (metadata.get(f"{kind}s") or {}).items():
                name = "".join(char if char.isalnum() else "_" for char in key)
                labels[f"{META}{role}_{kind}_{name}"] = value
                labels[f"{META}{role}_{kind}present_{name}"] = "true"
    labels["team"] = space["metadata"]["labels"]["team"]
    return labels


def expected_targets(given, space):
    """All targets of one pod object."""
    for init, spec, status in (
        (False, "containers", "containerStatuses"),
        (True, "initContainers", "initContainerStatuses"),
    ):
        for each in given["spec"].get(spec, []):
            state = [s for s in given["status"].get(status, []) if s["name"] == each["name"]]
            for one in each.get("ports") or [None]:
                owner = {"c": each, "s": state[0] if state else None, "p": one, "init": init}
                address = given["status"]["podIP"] + (f":{one['containerPort']}" if one else "")
                yield {"__address__": address} | expected_labels(given, owner, space)


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.35", "1.36"])
def test_recorded_lists(corpus, version):
    """Every pod of a real kubelet's list becomes just the targets that its object says."""
    folder = corpus / version
    spaces = {}
    listed = yaml.safe_load((folder / "namespaces.yaml").read_text("utf-8"))["items"]
    for space in listed:
        space["metadata"].setdefault("labels", {}).setdefault(
            "team", f"of-{space['metadata']['name']}"
        )
        spaces[space["metadata"]["name"]] = space
    body = (folder / "pods.json").read_bytes()
    labels = label_map(
        *(
            Namespace(name, each["metadata"]["labels"], each["metadata"].get("annotations") or {})
            for name, each in spaces.items()
        )
    )
    got = flat(parse_pods(body, lambda _: True).render(labels.lookup))
    expected = [
        target
        for given in json.loads(body)["items"]
        if given["status"].get("podIP")
        for target in expected_targets(given, spaces[given["metadata"]["namespace"]])
    ]
    assert len(expected) > 10
    assert Counter(map(frozen, got)) == Counter(map(frozen, expected))


def frozen(target):
    """Labels that can be counted."""
    return tuple(sorted(target.items()))
