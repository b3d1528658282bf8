"""Labels of one node's pods: what a rule makes of a pod, and how long a pod is remembered."""

from __future__ import annotations

import json

import pytest

from kmproxy.config.label_rules import parse_rules
from kmproxy.config.pod_labels import PodConfig, PodRule
from kmproxy.errors import UpstreamError
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels import pods as module
from kmproxy.labels.pods import RETENTION, AnswerPods, PodLabelReader, PodMap
from kmproxy.labels.rendering import KnownLabels, Renderer
from tests.support.pods import pod

RULES = (PodRule("app.kubernetes.io/name", "app"), PodRule("tier", "level"))
WEB = {"app.kubernetes.io/name": "web", "tier": "front", "pod-template-hash": "5d4f"}
NOW = 1000.0


def listing(*pods, workload=True, rules=RULES, max_value=1024, step=None):
    """The labels of a list of these pods, read in pieces of `step` bytes."""
    body = json.dumps({"kind": "PodList", "items": list(pods)}).encode()
    return read(body, step=step, workload=workload, rules=rules, max_value=max_value)


def read(body, *, workload=True, rules=RULES, max_value=1024, step=None):
    """The labels of a list, read in pieces of `step` bytes."""
    reader = PodLabelReader(PodConfig(workload=workload, rules=rules), max_value=max_value)
    step = step or len(body) or 1
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
    return reader.finish()


def held(*listings, now=NOW):
    """A map that saw these lists, one a second, the last one now."""
    pods = PodMap()
    for number, each in enumerate(listings):
        pods.swap(each, now - len(listings) + 1 + number)
    return pods


def labelled(labels, name="web-0", **metadata):
    """A pod with these labels."""
    return pod(name, metadata={"name": name, "namespace": "shop", "labels": labels, **metadata})


def of(each, **how):
    """The bytes that the samples of a pod get."""
    name = each["metadata"]["name"].encode()
    return held(listing(each, **how)).lookup(b"shop", name)


def test_in_the_order_of_the_rules():
    """Labels by their rules, then the workload, then its type."""
    owner = {"kind": "ReplicaSet", "name": "web-5d4f", "controller": True}
    assert of(labelled(WEB, ownerReferences=[owner])) == (
        b',app="web",level="front",workload="web",workload_type="deployment"'
    )
    assert of(labelled(WEB), workload=False, rules=RULES[::-1]) == b',level="front",app="web"'
    assert of(labelled(WEB), rules=()) == b',workload="web-0",workload_type="barepod"'


def test_labels_that_are_not_there():
    """Neither an absent value nor an empty one is added. The pod is known all the same."""
    assert of(labelled({"tier": ""}), workload=False) == b""
    assert of(labelled(None), workload=False) == b""
    assert held(listing(labelled(WEB))).lookup(b"shop", b"web-1") is None
    assert held(listing(labelled(WEB))).lookup(b"other", b"web-0") is None
    assert held().lookup(b"shop", b"web-0") is None


def test_a_static_pod():
    """The kubelet's own annotation tells."""
    source = {"annotations": {"kubernetes.io/config.source": "file", "x": "y"}}
    assert of(labelled({}, **source)) == b',workload="web-0",workload_type="staticpod"'


def test_values_are_escaped():
    """As the text format demands."""
    assert of(labelled({"tier": 'a"b\\c\nd'}), workload=False) == b',level="a\\"b\\\\c\\nd"'
    assert of(labelled({"tier": "é"}), workload=False) == ',level="é"'.encode()


def test_a_long_value():
    """It is left out and counted; the others stay."""
    given = listing(labelled({"tier": "x" * 9, "app.kubernetes.io/name": "é" * 3}), max_value=6)
    pods = held(given)
    expected = ',app="ééé",workload="web-0"'.encode()
    assert pods.lookup(b"shop", b"web-0") == expected
    assert pods.left_out == 2  # the label, and "barepod"


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_pieces_do_not_show(step):
    """However a list is cut, its pods are the same."""
    pods = [labelled(WEB, f"web-{number}") for number in range(20)]
    assert listing(*pods, step=step).rendered == listing(*pods).rendered


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"items": [{"metadata": {}}]}', b'{"items": [']
)
def test_what_is_no_list_of_pods(body):
    """It is never taken for an empty list, of which all pods would be gone."""
    with pytest.raises(UpstreamError, match="not a list of pods"):
        read(body)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"deletionTimestamp": "2026-01-02T00:00:00Z", "creationTimestamp": "2026-01-01T00:00:09Z"}, {"creationTimestamp": "2026-01-01T00:00:00Z"}),
        ({"creationTimestamp": "2026-01-01T00:00:00Z"}, {"creationTimestamp": "2026-01-01T00:00:09Z"}),
        ({"uid": "a"}, {"uid": "b"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_two_pods_of_one_name(older, newer, turned):
    """The newer one counts, wherever it stands in the list."""
    pods = [labelled({"tier": "old"}, **older), labelled({"tier": "new"}, **newer)]
    found = held(listing(*(pods[::-1] if turned else pods), workload=False))
    assert found.lookup(b"shop", b"web-0") == b',level="new"'
    assert len(found) == 1


def test_a_pod_that_left_the_list():
    """It keeps its labels for five minutes from the first list without it, and no longer."""
    pods = held(listing(labelled(WEB)))
    before = pods.lookup(b"shop", b"web-0")
    pods.swap(listing(labelled({}, "web-1")), NOW + 60)
    pods.swap(listing(), NOW + 120)
    assert (len(pods), pods.gone) == (2, 2)
    pods.expire(NOW + 60 + RETENTION - 0.1)
    assert pods.lookup(b"shop", b"web-0") == before
    pods.expire(NOW + 60 + RETENTION)
    assert pods.lookup(b"shop", b"web-0") is None
    assert pods.lookup(b"shop", b"web-1") is not None
    pods.swap(listing(), NOW + 120 + RETENTION)
    assert (len(pods), pods.gone) == (0, 0)


def test_a_pod_that_comes_back():
    """Under its name, with another UID, it has its new labels, and its time begins anew."""
    pods = held(listing(labelled({"tier": "old"}, uid="a"), workload=False), listing())
    assert pods.lookup(b"shop", b"web-0") == b',level="old"'
    pods.swap(listing(labelled({"tier": "new"}, uid="b"), workload=False), NOW + 200)
    assert pods.lookup(b"shop", b"web-0") == b',level="new"'
    assert pods.gone == 0
    pods.expire(NOW + 2 * RETENTION)
    pods.swap(listing(), NOW + 400)
    pods.expire(NOW + 400 + RETENTION - 1)
    assert pods.lookup(b"shop", b"web-0") == b',level="new"'


def test_edited_labels():
    """The next list has them, without a new UID."""
    pods = held(
        listing(labelled({"tier": "a"}), workload=False),
        listing(labelled({"tier": "b"}), workload=False),
    )
    assert pods.lookup(b"shop", b"web-0") == b',level="b"'


def test_an_answer_that_is_older_than_a_list():
    """It has the labels of the first list after it: what came later is another pod."""
    one, two, three = (labelled({"tier": tier}, uid=tier) for tier in "abc")
    lists = [listing(each, workload=False) for each in (one, two, two, three)]
    pods = PodMap()
    for number, each in enumerate(lists):  # asked for at 0, 10, 20, 30
        pods.swap(each, NOW + 10 * number + 5, NOW + 10 * number)
    found = [pods.lookup(b"shop", b"web-0", NOW + began) for began in (-1, 0, 1, 10, 20, 21, 99)]
    assert [each[-2:-1] for each in found] == [b"a", b"a", b"b", b"b", b"b", b"c", b"c"]
    assert pods.lookup(b"shop", b"web-0")[-2:-1] == b"c"
    assert pods.lookup(b"shop", b"web-1", NOW) is None
    pods.expire(NOW + 15 + RETENTION)
    found = [pods.lookup(b"shop", b"web-0", NOW + began) for began in (0, 20, 21)]
    assert [each[-2:-1] for each in found] == [b"b", b"b", b"c"]
    pods.expire(NOW + 35 + RETENTION)
    assert pods.lookup(b"shop", b"web-0", NOW)[-2:-1] == b"c"


def test_many_changes(monkeypatch):
    """The oldest are forgotten, so that the changes of many pods take no more than their bytes."""
    pods = PodMap()
    for number in range(50):
        tiers = [labelled({"tier": f"{number}"}, f"web-{name}") for name in range(20)]
        pods.swap(listing(*tiers, workload=False), NOW + number, NOW + number)
        if not number:
            first = pods.size
            monkeypatch.setattr(module, "MAX_EARLIER", 20_000)
    assert 10_000 < pods.size - first <= 20_000
    assert pods.lookup(b"shop", b"web-0", NOW + 48) == b',level="48"'
    assert pods.lookup(b"shop", b"web-0", NOW) != b',level="0"'
    pods.expire(NOW + 50 + RETENTION)
    assert pods.size == first + len("49") - len("0")


def test_earlier_labels_count_to_the_longest():
    """A portion of an answer leaves room for them."""
    pods = held(listing(labelled({"tier": "x" * 99})), listing(labelled({"tier": "y"})))
    assert pods.longest > 99
    pods.expire(NOW + RETENTION)
    pods.swap(listing(labelled({"tier": "y"})), NOW + RETENTION)
    assert pods.longest < 99


def test_an_answer():
    """An unknown pod needs a list; after it, the sample is left out, or passes as it is."""
    pods = held(listing(labelled({"tier": "a"}), workload=False))
    for keep, expected in ((False, None), (True, b"")):
        noted = []
        answer = AnswerPods(pods, NOW, keep=keep, note=lambda noted=noted: noted.append(1))
        for name in (b"web-0", b"new"):  # a known name may be that of a new pod
            with pytest.raises(PodsNeededError):
                answer.lookup(b"shop", name)
        answer.use_known()
        assert answer.lookup(b"shop", b"web-0") == b',level="a"'
        with pytest.raises(PodsNeededError):
            answer.lookup(b"shop", b"new")
        assert noted == []
        answer.use_list()
        for name in (b"new", b"new", b"other"):
            assert answer.lookup(b"shop", name) == expected
        assert noted == [1, 1]
        assert answer.lookup(b"shop", b"web-0") == b',level="a"'


def test_a_list_that_is_too_large(monkeypatch):
    """It fails, rather than to take some pods for unknown ones."""
    monkeypatch.setattr(module, "MAX_MAP", 20_000)
    pods = [labelled({"tier": f"{number:060}"}, f"web-{number}") for number in range(100)]
    with pytest.raises(UpstreamError, match="over 20000 bytes") as raised:
        listing(*pods)
    assert raised.value.reason == "too_large"


def test_many_pods_that_are_gone(monkeypatch):
    """Those that left first are forgotten; a listed pod never is."""
    first = [labelled({}, f"a-{number}") for number in range(30)]
    second = [labelled({}, f"b-{number}") for number in range(30)]
    pods = held(listing(*first), listing(*second))
    assert pods.gone == 30
    whole = pods.size
    monkeypatch.setattr(module, "MAX_MAP", whole)
    pods.swap(listing(labelled({}, "c-0")), NOW + 10)
    assert pods.size <= whole + 2 * 256 + 100
    assert pods.lookup(b"shop", b"c-0") is not None
    assert all(pods.lookup(b"shop", f"b-{number}".encode()) for number in range(30))
    assert (
        sum(pods.lookup(b"shop", f"a-{number}".encode()) is not None for number in range(30)) < 30
    )


def test_names_that_pods_give():
    """A rule with `*` does not make them of a namespace's labels, nor does an older snapshot."""
    rules, _ = parse_rules(("*",), (), ())
    labels = {"app": "a", "pod": "p", "workload": "w", "x": "1", "y": "2"}
    space = ObjectMeta("shop", labels)
    before, now = Renderer(rules), Renderer(rules, reserved=frozenset({"app", "pod", "workload"}))
    assert now.render(space).labels == b',x="1",y="2"'
    known = KnownLabels.of(b"shop", before.render(space), None)
    assert b"workload" in before.render_anew(known).labels
    assert now.render_anew(known).labels == b',x="1",y="2"'
