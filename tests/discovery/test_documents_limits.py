"""Large, damaged and foreign lists of pods: every document stays within its limits."""

from __future__ import annotations

import json

import pytest

from kmproxy.config.label_rules import LAST_APPLIED
from kmproxy.discovery.documents import MAX_LIST, MAX_POD
from kmproxy.discovery.nodes import ListedNode, NodeList
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import MAX_METADATA
from kmproxy.errors import UpstreamError
from tests.support.pod_targets import label_map, listed, of
from tests.support.pods import container, flat, pod, port

META = "__meta_kubernetes_"


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
    """A body that is not a list of pods is refused, never taken for an empty node."""
    with pytest.raises(UpstreamError) as caught:
        parse_pods(body, lambda _: True)
    assert caught.value.reason == "garbage"


def test_the_size_is_what_is_held():
    """The bytes of a list grow with its pods and their labels."""
    one = parse_pods(json.dumps({"items": [pod()]}).encode(), lambda _: True)
    two = parse_pods(json.dumps({"items": [pod(), pod("web-1")]}).encode(), lambda _: True)
    assert two.size == 2 * one.size
    large = pod(metadata={"annotations": {"a": "x" * 4000, "b": "x" * 4000}})
    assert parse_pods(json.dumps({"items": [large]}).encode(), lambda _: True).size > 8000


def test_long_values_of_pods():
    """A value over 4 KiB is left out and counted, and its `present` label stays; so with `é`."""
    values = {"a": "x" * 4096, "b": "x" * 4097, "c": "é" * 2049, LAST_APPLIED: "x" * 250_000}
    held = listed(pod(metadata={"annotations": values}))
    (target,) = flat(held.render(label_map().lookup))
    assert of(target, "pod_annotation_") == {"a": "x" * 4096}
    assert len(of(target, "pod_annotationpresent_")) == 4
    assert held.left_out["value"] == 3


def test_many_values_of_a_pod():
    """All values take at most 32 KiB, in sorted order, labels before annotations."""
    values = {f"k{n:02}": "x" * 4000 for n in range(20)}
    held = listed(pod(metadata={"annotations": values, "labels": {"z": "1"}}))
    (target,) = flat(held.render(label_map().lookup))
    assert list(of(target, "pod_annotation_")) == [f"k{n:02}" for n in range(8)]
    assert of(target, "pod_label_") == {"z": "1"}
    assert held.left_out["pod"] >= 12
    assert held.size < MAX_METADATA + 1000


def test_many_targets_of_a_pod():
    """Of 30,000 ports the first ones stay, up to 1 MiB with the repeated labels."""
    ports = [port(number) for number in range(1, 30_000)]
    held = listed(pod(containers=[container("a", *ports)]), pod("web-1"))
    assert held.count + held.left_out["targets"] == len(ports) + 1
    assert MAX_POD // 2 < len(held.render(label_map().lookup)) < MAX_POD + 10_000
    assert len(held.pods) == 2


def test_many_large_pods():
    """The largest pods are left out, in any order of the list. All small ones stay."""
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
    """Two pods with equal name, identity and size stay two pods."""
    twins = [pod("twin", containers=[container(name, port(8080))]) for name in ("x1", "x2")]
    assert len(flat(listed(*twins).render(lambda _: b""))) == 2


def test_a_long_document(monkeypatch):
    """Labels of namespaces count towards the bound. The largest pods are left out."""
    held = listed(*(pod(f"p{n}", metadata={"namespace": f"n{n % 2}"}) for n in range(10)))
    monkeypatch.setattr("kmproxy.discovery.documents.MAX_DOCUMENT", 20_000)
    added = {b"n0": b',"k":"%b"' % (b"x" * 5000), b"n1": b""}
    document = held.document(added.get)
    targets = flat(b"".join(document))
    assert len(b"".join(document)) <= 20_000
    assert len(targets) + document.left_out == 10
    assert {"p1", "p3", "p5", "p7", "p9"} <= {t["__meta_kubernetes_pod_name"] for t in targets}


def test_nodes_with_much_metadata(monkeypatch):
    """A value, a node and all nodes have bounds. The largest nodes lose their metadata."""
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
