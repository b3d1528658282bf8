"""Labels of pods: which samples get them, which are left out, and the wait for the list."""

from __future__ import annotations

import pytest

from kmproxy.exposition import general_enricher, remembered, sample_editor
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Globs, Selection
from kmproxy.exposition.splitter import KeySplitter
from tests.support.engines import fed

NAMESPACES = {
    b"shop": b',team="a"',
    b"both": b',workload="of the namespace",team="b"',
    b"pods": b',pod="x"',
}
PODS = {
    (b"shop", b"web-1"): b',workload="web",workload_type="deployment"',
    (b"shop", b"bare"): b"",
    (b'o"dd', b"p\\q"): b',workload="odd"',
    (b"both", b"web-1"): b',workload="web"',
    (b"pods", b"web-1"): b',workload="web"',
}  # fmt: skip


def lookup(namespace, pod):
    """The labels of a pod."""
    return PODS.get((namespace, pod))


def pipeline(engine, pods=lookup, **options):
    """A pipeline with pods."""
    recipe = Recipe(pods=True, **options)
    return Pipeline(lambda name: NAMESPACES.get(name, b""), recipe, pods=pods, engine=engine)


def run(engine, text, cut=None, **options):
    """The output and the pipeline, for a text in pieces."""
    made = pipeline(engine, **options)
    return fed(made, text, cut), made


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # next to the namespace
        (b'm{namespace="shop",pod="web-1"} 1',
         b'm{namespace="shop",team="a",pod="web-1",workload="web",workload_type="deployment"} 1'),
        (b'm{a="1",namespace="shop",pod="web-1",b="2"} 1 5',
         b'm{a="1",namespace="shop",team="a",pod="web-1",workload="web",workload_type="deployment",b="2"} 1 5'),
        (b'm{namespace="shop",pod="bare"} 1', b'm{namespace="shop",team="a",pod="bare"} 1'),
        # elsewhere, spelled in other ways
        (b'm{namespace="shop",a="",pod="web-1"} 1',
         b'm{namespace="shop",team="a",a="",pod="web-1",workload="web",workload_type="deployment"} 1'),
        (b'm{pod="web-1",namespace="shop"} 1',
         b'm{pod="web-1",workload="web",workload_type="deployment",namespace="shop",team="a"} 1'),
        (b'm{ "pod" = "web-1" , namespace="shop" ,} 1',
         b'm{ "pod" = "web-1",workload="web",workload_type="deployment" , namespace="shop",team="a" ,} 1'),
        (b'{"m",namespace="shop",pod="web-1"} 1 # {pod="x"} 1',
         b'{"m",namespace="shop",team="a",pod="web-1",workload="web",workload_type="deployment"} 1 # {pod="x"} 1'),
        (b'm{namespace="o\\"dd",pod="p\\\\q"} 1', b'm{namespace="o\\"dd",pod="p\\\\q",workload="odd"} 1'),
        # no pod
        (b'm{namespace="shop"} 1', b'm{namespace="shop",team="a"} 1'),
        (b'm{namespace="shop",pod=""} 1', b'm{namespace="shop",team="a",pod=""} 1'),
        (b'm{namespace="",pod="web-1"} 1', b'm{namespace="",pod="web-1"} 1'),
        (b'm{pod="web-1"} 1', b'm{pod="web-1"} 1'),
        (b'm{namespace="shop",a="",exported_pod="web-1"} 1',
         b'm{namespace="shop",team="a",a="",exported_pod="web-1"} 1'),
        (b'm{namespace="shop",a=",pod="} 1', b'm{namespace="shop",team="a",a=",pod="} 1'),
        (b"m 1", b"m 1"),
        # a pod that is not known
        (b'm{namespace="shop",pod="gone"} 1', None),
        (b'm{pod="gone",namespace="shop"} 1', None),
        (b'm { namespace="shop", "pod"="gone" } 1 5 # {a="b"} 1', None),
        # not understood
        (b'm{namespace="shop",pod="web-1",pod="web-1"} 1', b'm{namespace="shop",pod="web-1",pod="web-1"} 1'),
        (b'm{pod="gone",namespace="shop",pod="gone"} 1', b'm{pod="gone",namespace="shop",pod="gone"} 1'),
        (b'm{namespace="shop",pod="gone"} x', b'm{namespace="shop",pod="gone"} x'),
        # of two labels with one name the pod's counts
        (b'm{namespace="both",pod="web-1"} 1', b'm{namespace="both",team="b",pod="web-1",workload="web"} 1'),
        (b'm{namespace="both"} 1', b'm{namespace="both",workload="of the namespace",team="b"} 1'),
        # a namespace that adds a label called pod does not name a pod by it
        (b'm{namespace="pods"} 1', b'm{namespace="pods",pod="x"} 1'),
    ],
)  # fmt: skip
def test_labels_stand_behind_their_pairs(engine, line, expected):
    """The namespace's behind its pair, the pod's behind its own, wherever these stand."""
    kept = b"" if expected is None else expected + b"\n"
    plain = b'm{namespace="shop",pod="bare"} 1\n'
    other = b'm{namespace="shop",team="a",pod="bare"} 1\n'
    for cut in (None, 1, 7):
        output, made = run(engine, line + b"\n", cut)
        assert output == kept
        assert made.dropped == {"unknown_pod": expected is None}
        text = b"# HELP m x\n" + plain + b"# c\n" + line + b"\n# d\n" + plain + line
        assert run(engine, text, cut)[0] == (
            b"# HELP m x\n" + other + b"# c\n" + kept + b"# d\n" + other + (expected or b"")
        )


@pytest.mark.parametrize(
    ("line", "keep", "overwrite", "conflicts"),
    [
        (b'namespace="shop",pod="web-1",workload="own"',
         b'namespace="shop",team="a",pod="web-1",workload_type="deployment",workload="own"',
         b'namespace="shop",team="a",pod="web-1",workload_type="deployment",workload="web"', 1),
        (b'workload="own",team="own",namespace="shop",pod="web-1"',
         b'workload="own",team="own",namespace="shop",pod="web-1",workload_type="deployment"',
         b'workload="web",team="a",namespace="shop",pod="web-1",workload_type="deployment"', 2),
        (b'namespace="both",pod="web-1",workload=""',
         b'namespace="both",team="b",pod="web-1",workload=""',
         b'namespace="both",team="b",pod="web-1",workload="web"', 1),
        (b'namespace="pods",pod="web-1"',
         b'namespace="pods",pod="web-1",workload="web"',
         b'namespace="pods",pod="x",workload="web"', 1),
    ],
)  # fmt: skip
def test_conflicts(engine, line, keep, overwrite, conflicts):
    """A label of a pod that the sample bears is kept or overwritten, as a namespace's is."""
    for on_conflict, expected in (("keep", keep), ("overwrite", overwrite)):
        output, made = run(engine, b"m{%b} 1\n" % line, on_conflict=on_conflict)
        assert output == b"m{%b} 1\n" % expected
        assert made.enricher.conflicts == conflicts


def test_what_was_left_out_counts_once(engine):
    """A sample of an unknown pod counts as left out, and as nothing else."""
    text = b'm{namespace="gone",pod="x",team="y"} 1\nm{namespace="shop",pod="bare"} 1\n'
    _, made = run(engine, text, info=True, selection=Selection(exclude_namespaces=Globs(("none",))))
    assert made.dropped == {"metric": 0, "namespace": 0, "merged": 0, "unknown_pod": 1}
    found = made.enricher
    assert (found.samples, found.enriched, found.conflicts, found.unparsed) == (1, 1, 0, 0)
    assert list(found.seen) == [b"shop"]


LONG = b'm{namespace="shop",pod="%b"} 1\n' % (b"x" * 300)
TEXT = (
    b'm{namespace="shop",pod="web-1",team="q"} 1\nm 1\nbroken\n# HELP x y\n'
    + LONG
    + b'm{namespace="shop",pod="new-1"} 2\nm{namespace="shop",pod="gone"} 3\nm{team="z"} 4'
)


@pytest.mark.parametrize("cut", [1, 5, 44, 60, 100, 333, 1000])
@pytest.mark.parametrize("overlong", [False, True])
@pytest.mark.parametrize("chosen", [Selection(), Selection(drop_metrics=(Globs(("none",)),))])
def test_the_wait_for_the_list(engine, cut, overlong, chosen):
    """Nothing is lost, and nothing counts twice, wherever the list is needed."""
    options = {"max_line": 200} if overlong else {}
    options |= {"info": True, "selection": chosen}
    known, asked = dict(PODS), []

    def later(namespace, pod):
        if (namespace, pod) in known:
            return known[namespace, pod]
        if not asked:
            asked.append(pod)
            raise PodsNeededError
        return None

    made, output = pipeline(engine, pods=later, **options), []
    for at in range(0, len(TEXT), cut):
        before = made.enricher.counts()
        try:
            output.append(made.feed(TEXT[at : at + cut]))
        except PodsNeededError:
            assert made.enricher.counts() == before
            known[b"shop", b"new-1"] = b',workload="new"'
            output.append(made.feed(b""))
    output.append(made.finish())
    assert len(asked) == 1
    fresh = {**PODS, (b"shop", b"new-1"): b',workload="new"'}
    whole, other = run(engine, TEXT, pods=lambda *key: fresh.get(key), **options)
    assert b"".join(output) == whole
    assert b'workload="new"' in whole
    assert made.enricher.counts() == other.enricher.counts()
    assert made.dropped == other.dropped


def test_the_wait_at_the_end(engine):
    """A last line without a newline may need the list, too: `finish` goes on where it was."""
    asked = []

    def later(*_):
        if not asked:
            asked.append(1)
            raise PodsNeededError
        return b',workload="w"'

    chosen = Selection(drop_metrics=(Globs(("none",)),))
    made = pipeline(engine, pods=later, selection=chosen)
    assert made.feed(b'm 1\nm{namespace="shop",pod="p"} 1') == b"m 1\n"
    with pytest.raises(PodsNeededError):
        made.finish()
    assert made.finish() == b'm{namespace="shop",team="a",pod="p",workload="w"} 1'
    assert (made.enricher.samples, made.enricher.enriched) == (2, 1)


def test_the_end_right_behind_the_wait(engine):
    """A caller whose last piece needed the list may end at once: what waited is not lost."""
    asked = []

    def later(*_):
        if not asked:
            asked.append(1)
            raise PodsNeededError
        return b""

    made = pipeline(engine, pods=later)
    with pytest.raises(PodsNeededError):
        made.feed(b'm{namespace="shop",pod="p"} 1\nm{namespace="shop"} 2')
    assert (
        made.finish() == b'm{namespace="shop",team="a",pod="p"} 1\nm{namespace="shop",team="a"} 2'
    )
    assert made.enricher.samples == 2


def test_each_pod_is_looked_up_once(engine):
    """So an exposition shows one state of a pod."""
    asked = []
    text = b'm{namespace="shop",pod="p"} 1\nm{pod="p",namespace="shop"} 1\n' * 50
    output, _ = run(engine, text, 77, pods=lambda *key: asked.append(key) or b',workload="w"')
    assert asked == [(b"shop", b"p")]
    assert output.count(b"workload=") == 100


def test_kubelets_lines_are_read_fast():
    """A pod right behind its namespace is found by one look-up, a line of another shape is not."""
    splitter = KeySplitter(frozenset({b"team"}), frozenset({b"namespace"}), pods=True)
    block = (
        b'm{a="1",namespace="n",pod="p",b=""} 1\nm{namespace="n"} 1\nm{namespace="n",pod=""} 1\n'
    )
    parts, odd = splitter.split(block)
    assert parts[2::3] == [b'namespace="n",pod="p', b'namespace="n', b'namespace="n",pod="']
    assert odd == []
    for line in (
        b'm{pod="p",namespace="n"} 1\n',
        b'm{namespace="n",a="",pod="p"} 1\n',
        b'm{namespace="n",pod="p",pod="p"} 1\n',
        b'm{namespace="n",pod="p",team=""} 1\n',
        b'm{namespace="n",pod="\\\\"} 1\n',
    ):
        parts, odd = splitter.split(line)
        assert [part for part in parts[2::3] if part] == []
        assert b"".join(parts) == line


def test_what_is_remembered_is_bounded(monkeypatch):
    """Ever new pods, shapes and keys cost a bounded number of bytes."""
    monkeypatch.setattr(remembered, "MAX_REMEMBERED", 50_000)
    monkeypatch.setattr(sample_editor, "MAX_SHAPES", 50_000)
    monkeypatch.setattr(general_enricher, "MAX_EDITS", 50_000)
    made = pipeline(
        "pure", pods=lambda _, pod: b',workload="%b"' % pod, names=frozenset({b"team", b"workload"})
    )
    for number in range(0, 2000, 20):
        here = range(number, number + 20)
        plain = b"".join([b'm{namespace="shop",pod="p%d"} 1\n' % n for n in here])
        odd = b"".join([b'm{a%d="",pod="p%d",namespace="shop"} 1\n' % (n, n) for n in here])
        assert made.feed(plain).count(b",workload=") == 20
        assert made.feed(odd).count(b",workload=") == 20
        held = made.enricher
        assert sum(len(key) + 100 for key in held._keys) < 60_000
        assert sum(len(pod) + 400 for _, pod in held._labels._of_pods) < 60_000
        shapes = held._editor._shapes
        assert sum(100 * (1 + len(shape.changes)) for shape in shapes.values()) < 60_000
    assert made.enricher.enriched == 4000


def test_contradictions():
    """Pods go by the label namespace alone, and a recipe with pods needs their look-up."""
    with pytest.raises(ValueError, match="named by the label namespace only"):
        Recipe(pods=True, namespace_labels=NamespaceLabels((b"exported_namespace",)))
    with pytest.raises(ValueError, match="needs their look-up"):
        Pipeline(dict.get, Recipe(pods=True))
