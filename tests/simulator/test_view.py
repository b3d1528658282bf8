"""The view of the simulated API server's store: lists, watch lines, discovery."""

import json

import pytest

from kmproxy.simulator.objects import key
from kmproxy.simulator.statuses import StatusError
from kmproxy.simulator.store import Namespaces, Store
from kmproxy.simulator.view import DISCOVERY, REVIEWS, Pages, Place, View, event_line, place

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@pytest.fixture
def store():
    """Make a store with three namespaces, made out of order."""
    made = Store()
    for name, labels in (("c", {"team": "y"}), ("a", {"team": "x"}), ("b", {})):
        Namespaces(made).apply(name, labels)
    return made


def names(items):
    """Return the names of objects."""
    return [item["metadata"]["name"] for item in items]


def events(lines):
    """Return kind and object of each line."""
    documents = [json.loads(line) for line in lines]
    return [(each["type"], each["object"]) for each in documents]


@pytest.mark.parametrize(
    ("query", "selected"),
    [
        ({}, "abc"),
        ({"fieldSelector": "metadata.name=b"}, "b"),
        ({"fieldSelector": "metadata.name==b"}, "b"),
        ({"labelSelector": "team"}, "ac"),
        ({"labelSelector": "team=y"}, "c"),
        ({"labelSelector": "team,kubernetes.io/metadata.name=a"}, "a"),
        ({"labelSelector": "team=y", "fieldSelector": "metadata.name=a"}, ""),
    ],
)
def test_selectors(store, query, selected):
    """A view selects by name or by labels, and is sorted by name."""
    assert names(View(store, "namespaces", query).items()) == list(selected)


def test_shapes(store):
    """An object is shown whole, or as metadata on request."""
    (item, *_) = View(store, "namespaces", {}).items()
    assert View(store, "namespaces", {}, "application/json").shape(item) is item
    view = View(store, "namespaces", {}, METADATA)
    assert view.shape(item) == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": item["metadata"],
    }
    assert repr(view) == "<View of namespaces, metadata only>"


def test_documents(store):
    """Items of a whole list have no kind, items of a partial list do."""
    whole, partial = (View(store, "namespaces", {}, accept) for accept in ("", METADATA))
    listed = whole.document(whole.items(), {"resourceVersion": "7"})
    assert (listed["kind"], listed["metadata"]) == ("NamespaceList", {"resourceVersion": "7"})
    assert all(each.keys() == {"metadata", "spec", "status"} for each in listed["items"])
    listed = partial.document(partial.items(), {})
    assert listed["kind"] == "PartialObjectMetadataList"
    assert all(each.keys() == {"kind", "apiVersion", "metadata"} for each in listed["items"])
    assert View(store, "nodes", {}).document([], {})["kind"] == "NodeList"


def test_events_since_a_version(store):
    """Each later change of a selected object is a line. The version moves in any case."""
    view = View(store, "namespaces", {"labelSelector": "team"}, METADATA)
    before = store.version
    Namespaces(store).apply("d", {"team": "z"})
    Namespaces(store).apply("b", {"tier": "1"})
    version, lines = view.since(before)
    assert version == store.version == before + 2
    assert [(kind, item["kind"]) for kind, item in events(lines)] == [
        ("ADDED", "PartialObjectMetadata")
    ]
    assert view.since(version) == (version, [])


def test_initial_lines(store):
    """Present objects come as added. An annotated bookmark ends a streaming list."""
    version, lines = View(store, "namespaces", {}).initial()
    assert version == store.version
    assert [(kind, item["metadata"]["name"]) for kind, item in events(lines)] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("ADDED", "c"),
    ]
    _, lines = View(store, "namespaces", {"sendInitialEvents": "true"}).initial()
    kind, mark = events(lines)[-1]
    assert kind == "BOOKMARK"
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["metadata"]["resourceVersion"] == str(version)


def test_bookmarks(store):
    """A bookmark is an object with only a version."""
    ((kind, mark),) = events([View(store, "nodes", {}).bookmark(7)])
    assert (kind, mark["kind"]) == ("BOOKMARK", "Node")
    assert mark["metadata"] == {"resourceVersion": "7", "creationTimestamp": None}


def test_a_line_is_one_line():
    """A line break in a value does not break the line."""
    assert event_line("ADDED", {"a": "b\nc"}) == b'{"type":"ADDED","object":{"a":"b\\nc"}}\n'


def test_pages_are_of_one_moment(store):
    """Changes between pages do not show, and the last page has no token."""
    pages = Pages(store)
    first = pages.turn(View(store, "namespaces", {"limit": "2"}))
    assert (names(first["items"]), first["metadata"]["remainingItemCount"]) == (["a", "b"], 1)
    assert repr(pages) == "<Pages 1 to continue>"
    Namespaces(store).apply("d")
    token = first["metadata"]["continue"]
    last = pages.turn(View(store, "namespaces", {"limit": "2", "continue": token}))
    assert names(last["items"]) == ["c"]
    assert last["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    pages.clear()
    with pytest.raises(StatusError, match="too old") as error:
        pages.turn(View(store, "namespaces", {"continue": token}))
    assert (error.value.code, error.value.status["reason"]) == (410, "Expired")


def test_only_so_many_lists_can_be_continued(store):
    """Over 1000 lists the oldest is forgotten."""
    pages = Pages(store)
    view = View(store, "namespaces", {"limit": "1"})
    first, *_, last = [pages.turn(view)["metadata"]["continue"] for _ in range(1001)]
    assert names(pages.turn(View(store, "namespaces", {"continue": last}))["items"]) == ["b", "c"]
    with pytest.raises(StatusError):
        pages.turn(View(store, "namespaces", {"continue": first}))


def test_a_list_of_a_version_to_come(store):
    """It is refused with the store's error."""
    query = {"resourceVersion": str(store.version + 1)}
    with pytest.raises(StatusError, match="Too large resource version"):
        Pages(store).turn(View(store, "namespaces", query))


def test_discovery_leads_to_every_resource():
    """Groups lead to resources: every kind of object, and the reviews."""
    groups = [group["name"] for group in DISCOVERY["apis"]["groups"]]
    listed = {
        "endpointslices": "discovery.k8s.io",
        "events": "events.k8s.io",
        "leases": "coordination.k8s.io",
    }
    assert groups == sorted({*REVIEWS.values(), *listed.values()})
    found = {
        resource["name"]: group
        for group in groups
        for resource in DISCOVERY[f"apis/{group}/v1"]["resources"]
    }
    assert found == {**REVIEWS, **listed}
    core = {each["name"]: each["namespaced"] for each in DISCOVERY["api/v1"]["resources"]}
    assert core == {
        "namespaces": False,
        "nodes": False,
        "endpoints": True,
        "pods": True,
        "services": True,
    }
    assert DISCOVERY["api"]["versions"] == ["v1"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("api/v1/namespaces", Place("namespaces")),
        ("api/v1/namespaces/a", Place("namespaces", "", "a")),
        ("api/v1/pods", Place("pods")),
        ("api/v1/namespaces/a/pods", Place("pods", "a")),
        ("api/v1/namespaces/a/pods/p", Place("pods", "a", "p")),
        (
            "apis/discovery.k8s.io/v1/namespaces/a/endpointslices",
            Place("endpointslices", "a"),
        ),
        ("apis/discovery.k8s.io/v1/endpointslices", Place("endpointslices")),
        ("api/v1/pods/p", None),
        ("api/v1/namespaces/a/nodes", None),
        ("api/v1/namespaces/a/nodes/n", None),
        ("api/v1/namespaces/a/pods/p/status", None),
        ("api/v1/endpointslices", None),
        ("apis/discovery.k8s.io/v1beta1/endpointslices", None),
        ("api/v2/pods", None),
        ("api/v1", None),
        ("apis/apps/v1/deployments", None),
        ("version", None),
        ("", None),
    ],
)
def test_places(path, found):
    """A path leads to a resource in one or all namespaces, to an object, or nowhere."""
    assert place(path) == found


def test_a_namespace_and_a_node(store):
    """Objects of one or all namespaces are shown, or only those of a node."""
    for name, namespace, node in (("p", "a", "n"), ("q", "a", "m"), ("p", "b", "n")):
        metadata = {"name": name, "namespace": namespace}
        store.put("pods", {"metadata": metadata, "spec": {"nodeName": node}})
    whole = View(store, "pods", {})
    assert [key(each) for each in whole.items()] == ["a/p", "a/q", "b/p"]
    assert whole.document([], {})["kind"] == "PodList"
    assert [key(each) for each in View(store, "pods", {}, "", "a").items()] == ["a/p", "a/q"]
    on_node = View(store, "pods", {"fieldSelector": "spec.nodeName=n"}, "", "a")
    assert [key(each) for each in on_node.items()] == ["a/p"]
    _, lines = View(store, "pods", {}, "", "b").since(0)
    assert [key(item) for _, item in events(lines)] == ["b/p"]
