"""Bounds on the bytes of a label value, of a namespace's labels and of all labels."""

import json
import subprocess
import sys

import pytest

from kmproxy.config.label_rules import LAST_APPLIED, parse_rules
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.errors import SnapshotError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels import label_map as labelmap
from kmproxy.labels.label_map import LIMITS, LabelMap
from kmproxy.labels.rendering import MAX_VALUE, NAMESPACE_BYTES, KnownLabels

SAMPLE = b'container_x{namespace="web",pod="p"} 1\n'


def label_map(labels=(), annotations=(), defaults=(), kind=LabelMap, **options):
    """An empty map under these rules."""
    rules, problems = parse_rules(labels, annotations, defaults)
    assert problems == []
    return kind(rules, **options)


def left_out(labels):
    """The values that a map counts as left out, by limit."""
    return {limit: labels.left_out(limit) for limit in LIMITS if labels.left_out(limit)}


@pytest.mark.parametrize(
    ("value", "length"),
    [("z" * 10, 10), ("\u00e9" * 5, 10), ("\U0001f680" * 2 + "zz", 10), ("\n" * 10, 10)],
)
def test_a_value_is_as_long_as_its_utf8(value, length):
    """A value of the limit is added; a byte more is left out, and counted. Escapes do not count."""
    for limit in (length, length - 1):
        labels = label_map(["team"], ["team=owner"], ["owner=nobody"], max_value=limit)
        labels.put(ObjectMeta("web", {"team": "x"}, {"team": value}))
        added = labels.lookup(b"web").decode()
        if limit == length:
            assert added == ',team="x",owner="{}"'.format(value.replace("\n", "\\n"))
            assert (left_out(labels), labels.lacking("owner")) == ({}, 0)
        else:
            assert added == ',team="x",owner="nobody"'
            assert (left_out(labels), labels.lacking("owner")) == ({"value": 1}, 1)


def test_what_is_left_out_is_counted_as_it_is_now():
    """The count follows changed, deleted and newly listed namespaces."""
    labels = label_map(["*"], ["contact"])
    long = "z" * (MAX_VALUE + 1)
    labels.put(ObjectMeta("a", {"x": long, "y": long, "z": "1"}, {"contact": long}))
    labels.put(ObjectMeta("b", {}, {"contact": long}))
    assert labels.lookup(b"a") == b',z="1"'
    assert left_out(labels) == {"value": 4}
    labels.put(ObjectMeta("a", {"x": long}))
    assert left_out(labels) == {"value": 2}
    labels.delete("a", now=0.0)
    assert left_out(labels) == {"value": 1}
    labels.replace([ObjectMeta("c", {"x": long})], now=1.0)
    assert left_out(labels) == {"value": 1}
    labels.replace([], now=1.0)
    assert left_out(labels) == {}


def test_a_long_value_makes_room_for_the_next_key_of_its_name():
    """Under `*`, the next key of the same label name is used, as for an empty value."""
    labels = label_map(["*"], max_value=3)
    labels.put(ObjectMeta("a", {"x-y": "long", "x.y": "ok"}))
    assert labels.lookup(b"a") == b',x_y="ok"'


def test_the_wildcard_does_not_take_what_kubectl_keeps():
    """The copy of the object that kubectl keeps is no label, unless a rule names it."""
    annotations = {LAST_APPLIED: "{}", "owner": "o"}
    for rules, added in ((["*"], b',owner="o"'), ([f"{LAST_APPLIED}=last"], b',last="{}"')):
        labels = label_map([], rules)
        labels.put(ObjectMeta("a", {}, annotations))
        assert labels.lookup(b"a") == added
        assert left_out(labels) == {}


def test_a_sample_of_a_namespace_with_everything_stays_small():
    """256 KiB of annotations of 1 KiB, or 50,000 short ones, add at most 8 KiB."""
    for annotations in (
        {f"k{n:03}": "z" * 1024 for n in range(256)},
        {f"{n:x}": "1" for n in range(50_000)},
        {f"k{n:03}": '"' * 1024 for n in range(256)},
    ):
        labels = label_map(["*"], ["*"], ["tier=low"])
        labels.put(ObjectMeta("web", {"team": "x"}, annotations))
        added = labels.lookup(b"web")
        assert added.startswith(b',team="x"')
        assert added.endswith(b',tier="low"')
        assert NAMESPACE_BYTES - 3000 < len(added) <= NAMESPACE_BYTES + len(b',tier="low"')
        counted = added.count(b'="') - 2 + labels.left_out("namespace")
        assert counted == len(annotations)


def test_the_bytes_of_a_namespace_go_to_named_rules_first():
    """Named rules come first, in any position. A left-out value takes no room."""
    crowd = {f"a{n:02}": "z" * 1000 for n in range(20)} | {"team": "x", "zz": "1"}
    labels = label_map(["*", "team"])
    labels.put(ObjectMeta("web", crowd))
    added = labels.lookup(b"web")
    assert added.endswith(b',zz="1",team="x"')
    assert added.count(b'="') == 8 + 2
    assert left_out(labels) == {"namespace": 12}


def test_a_limit_that_is_set_higher_is_kept():
    """With a limit of 100 KB per value, a namespace may have eight such values."""
    labels = label_map([], [f"a{n}" for n in range(20)], max_value=100_000)
    labels.put(ObjectMeta("web", {}, {f"a{n}": "z" * 99_000 for n in range(20)}))
    assert labels.lookup(b"web").count(b'="') == 8
    assert left_out(labels) == {"namespace": 12}


@pytest.fixture
def small(monkeypatch):
    """Maps with a limit of 1600 bytes."""

    class Small(labelmap.Listing):
        def __init__(self, otherwise):
            super().__init__(otherwise, 1600)

    monkeypatch.setattr(labelmap, "Listing", Small)


@pytest.mark.parametrize("how", ["put", "replace", "restore"])
def test_the_largest_namespaces_give_way(small, how):
    """Over the total limit, the largest namespaces get the defaults. Others are unchanged."""
    honest = [ObjectMeta(f"n{n}", {"team": f"t{n}"}) for n in range(20)]
    greedy = [ObjectMeta(f"a{n}", {f"k{m}": "z" * 30 for m in range(10)}) for n in range(6)]
    labels = label_map(["*"], [], ["team=nobody"])
    if how == "replace":
        labels.replace([*greedy, *honest], now=0.0)
    for space in [*greedy, *honest] if how == "put" else ():
        labels.put(space)
    if how == "restore":
        known = [
            KnownLabels(space.name, {"team": "nobody", **space.labels})
            for space in [*greedy, *honest]
        ]
        labels.restore(labels.rendered_anew(known), now=0.0)
    assert [labels.lookup(b"n%d" % n) for n in range(20)] == [b',team="t%d"' % n for n in range(20)]
    kept = [name for name in (b"a%d" % n for n in range(6)) if b"k1" in labels.lookup(name)]
    assert 0 < len(kept) < 6
    assert labels.lookup(b"a0") == b',team="nobody"'
    assert sum(map(len, labels._held.rendered.values())) == labels._held.held <= 1600
    assert left_out(labels) == {"map": (6 - len(kept)) * 10}
    labels.replace(honest, now=1.0)
    assert labels._held.held <= 1600


def test_namespaces_that_come_and_go_are_within_the_limit(small):
    """Remembered deleted namespaces count towards the limit."""
    labels = label_map(["*"])
    for n in range(100):
        labels.put(ObjectMeta(f"a{n}", {"k": "z" * 200}))
        labels.delete(f"a{n}", now=float(n))
        assert labels._held.held <= 1600
    labels.expire(1000.0)
    assert (labels._held.held, len(labels), labels._held.cut) == (0, 0, {})


def test_labels_of_targets_are_within_limits():
    """A value over the limit is left out, its `present` label is kept, and the total is bounded."""
    long = "z" * (MAX_VALUE + 1)
    labels = label_map(["team"], kind=TargetLabelMap)
    labels.put(ObjectMeta("a", {"team": "x"}, {"long": long, "short": "s"}))
    pairs = json.loads(b'{"":0%b}' % labels.lookup(b"a"))
    assert "__meta_kubernetes_namespace_annotation_long" not in pairs
    assert pairs["__meta_kubernetes_namespace_annotationpresent_long"] == "true"
    assert pairs["__meta_kubernetes_namespace_annotation_short"] == "s"
    labels.put(ObjectMeta("b", {"team": "x"}, {f"{n:x}": "1" for n in range(50_000)}))
    assert len(labels.lookup(b"b")) < 3 * NAMESPACE_BYTES
    assert json.loads(b'{"":0%b}' % labels.lookup(b"b"))["team"] == "x"


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (KnownLabels("a", {"other": "x"}), "no rule makes"),
        (KnownLabels("a", {"team": ""}), "too long"),
        (KnownLabels("a", {"team": "x" * (MAX_VALUE + 1)}), "too long"),
        (KnownLabels("a", {'team="y",b': "x"}), "no rule makes"),
        (KnownLabels("a", {"namespace": "x"}), "no rule makes"),
        (KnownLabels("a" * 254, {"team": "x"}), "not a valid name"),
        (KnownLabels("a", {}, ("other",)), "counts of missing labels are wrong"),
        (KnownLabels("a", {}, (), -1), "counts of missing labels are wrong"),
        (KnownLabels("a", {}, (), 0, -1), "counts of missing labels are wrong"),
    ],
)
def test_what_the_rules_do_not_make_is_not_restored(known, says):
    """A file with labels that the rules cannot make is refused. The map is unchanged."""
    labels = label_map(["team"], [], ["team=nobody"])
    with pytest.raises(SnapshotError, match=says):
        labels.rendered_anew([KnownLabels("b", {"team": "y"}), known])
    assert len(labels) == 0


def test_names_of_the_wildcard_are_restored_if_they_are_names():
    """Under `*` any valid label name is restored, and no other."""
    labels = label_map(["*"])
    labels.restore(labels.rendered_anew([KnownLabels("b", {"team": 'a"\n\\'})]), now=0.0)
    assert labels.lookup(b"b") == b',team="a\\"\\n\\\\"'
    for name in ("__a", "namespace", "a-b", 'a="b",c'):
        with pytest.raises(SnapshotError, match="no rule makes"):
            labels.rendered_anew([KnownLabels("b", {name: "x"})])


def test_what_comes_back_is_what_was():
    """Values of any kind, and the counts, are restored unchanged."""
    first = label_map(["*", "team"], ["*"])
    strange = '\\n"\\\\",team="z"} \n\r\t\u00e9\ud800\U0001f680'
    first.put(ObjectMeta("a", {"x": strange, "y": "z" * 2000, "e": "="}, {"k": "1"}))
    first.put(ObjectMeta("b", {"team": "t"}))
    second = label_map(["*", "team"], ["*"])
    second.restore(second.rendered_anew(first.state(0.0)), now=0.0)
    assert [second.lookup(name) for name in (b"a", b"b")] == [
        first.lookup(name) for name in (b"a", b"b")
    ]
    assert (left_out(second), second.lacking("team")) == ({"value": 1}, 1)


def test_a_quarter_of_a_megabyte(tmp_path):
    """The filter leaves the value out, reports it, and obeys --max-label-value-bytes."""
    space = {"metadata": {"name": "web", "annotations": {"contact": "z" * 250_000}}}
    file = tmp_path / "namespaces.json"
    file.write_text(json.dumps({"kind": "List", "items": [space]}))
    command = [sys.executable, "-m", "kmproxy", "enrich", "--namespaces", file]
    command += ["--annotation", "contact"]
    for flags, added in (([], 0), (["--max-label-value-bytes=250000"], 250_000)):
        done = subprocess.run(
            [*command, *flags], input=SAMPLE * 9, capture_output=True, check=True, timeout=60
        )
        assert len(done.stdout) == 9 * (len(SAMPLE) + (added and added + len(',contact=""')))
        said = b"kmproxy: values left out, each over 1024 bytes: 1\n"
        assert done.stderr == (b"" if added else said)


async def test_the_daemon_leaves_it_out_and_counts(front, cluster):
    """Samples stay small. A gauge counts the left-out values, and drops repaired ones."""
    long = {"contact": "z" * 250_000}
    cluster.api.namespaces.apply("frontend-service2", {"team": "frontend"}, annotations=long)
    proxy = await front("--annotation=contact", "--label=team")
    status, text = await proxy.get()
    assert status == 200
    assert 'namespace="frontend-service2",team="frontend",pod=' in text
    assert "zzz" not in text
    name = "kmproxy_label_values_left_out"
    assert await proxy.metric(name, limit="value") == 1
    assert await proxy.metric(name, limit="map") == 0
