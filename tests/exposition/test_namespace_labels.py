"""Samples whose namespace another label names, the first of a list, or several with prefixes."""

from __future__ import annotations

import pytest

from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from tests.support.engines import fed

LABELS = {b"a": b',team="x"', b"b": b',team="y",tier="1"', b"c": b""}
ONE = NamespaceLabels((b"exported_namespace",))
LIST = NamespaceLabels((b"exported_namespace", b"namespace"))
PREFIXES = NamespaceLabels((b"source", b"target"), (b"source_", b"target_"))
SAME = NamespaceLabels((b"source", b"target"), (b"of_", b"of_"))
SOME = NamespaceLabels((b"source", b"target"), (b"", b"target_"))


def run(engine, text, setting, cut=None, **options):
    """The output and the pipeline, for a text in pieces."""
    recipe = Recipe(namespace_labels=setting, **options)
    made = Pipeline(lambda name: LABELS.get(name, b""), recipe, engine=engine)
    return fed(made, text, cut), made


@pytest.mark.parametrize(
    ("setting", "line", "expected"),
    [
        (ONE, b'm{exported_namespace="a"} 1', b'm{exported_namespace="a",team="x"} 1'),
        (ONE, b'm{namespace="a"} 1', b'm{namespace="a"} 1'),
        (ONE, b'm{namespace="b",exported_namespace="a"} 1', b'm{namespace="b",exported_namespace="a",team="x"} 1'),
        (LIST, b'm{namespace="b",exported_namespace="a"} 1', b'm{namespace="b",exported_namespace="a",team="x"} 1'),
        (LIST, b'm{namespace="a"} 1', b'm{namespace="a",team="x"} 1'),
        (LIST, b'm{exported_namespace="",namespace="a"} 1', b'm{exported_namespace="",namespace="a",team="x"} 1'),
        (LIST, b'm{exported_namespace="c",namespace="a"} 1', b'm{exported_namespace="c",namespace="a"} 1'),
        (LIST, b'm{ "exported_namespace"="a" q="\\"" } 1 # {namespace="b"} 1',
         b'm{ "exported_namespace"="a",team="x" q="\\"" } 1 # {namespace="b"} 1'),
        (LIST, b'm{q=",namespace=",r="b"} 1', b'm{q=",namespace=",r="b"} 1'),
        (LIST, b'm{xnamespace="a"} 1', b'm{xnamespace="a"} 1'),
        (LIST, b'{"exported_namespace",a="b"} 1', b'{"exported_namespace",a="b"} 1'),
        # twice is not understood
        (LIST, b'm{namespace="a",namespace="a"} 1', None),
        (LIST, b'm{exported_namespace="a",namespace="b",namespace="b"} 1', None),
        (LIST, b'm{"namespace"="a",namespace=""} 1', None),
        (ONE, b'm{namespace="a",namespace="a",exported_namespace="a"} 1',
         b'm{namespace="a",namespace="a",exported_namespace="a",team="x"} 1'),
        # each adds its own
        (PREFIXES, b'm{source="a",q="",target="b"} 1',
         b'm{source="a",source_team="x",q="",target="b",target_team="y",target_tier="1"} 1'),
        (PREFIXES, b'm{target="a",source="a"} 1', b'm{target="a",target_team="x",source="a",source_team="x"} 1'),
        (PREFIXES, b'm{source="",target="a"} 1', b'm{source="",target="a",target_team="x"} 1'),
        (PREFIXES, b'm{namespace="a"} 1', b'm{namespace="a"} 1'),
        (PREFIXES, b'm{target="a",target="b"} 1', None),
        (SOME, b'm{source="a",target="a"} 1', b'm{source="a",team="x",target="a",target_team="x"} 1'),
        # of two labels with one name that of the first namespace label counts
        (SAME, b'm{target="b",source="a"} 1', b'm{target="b",of_tier="1",source="a",of_team="x"} 1'),
    ],
)  # fmt: skip
def test_labels_stand_behind_the_pair_that_names(engine, setting, line, expected):
    """The first label of a list that is not empty counts; with prefixes, each of them."""
    for cut in (None, 1, 7):
        output, made = run(engine, line + b"\n", setting, cut)
        assert output == (expected or line) + b"\n"
        assert (made.enricher.samples, made.enricher.unparsed) == (
            (0, 1) if expected is None else (1, 0)
        )
        assert made.enricher.enriched == (expected not in {None, line})


@pytest.mark.parametrize(
    ("line", "keep", "overwrite", "conflicts"),
    [
        (b'source="a",target="b",target_tier="",source_team="q"',
         b'source="a",target="b",target_team="y",target_tier="",source_team="q"',
         b'source="a",target="b",target_team="y",target_tier="1",source_team="x"', 2),
        (b'source="a",team="q"', b'source="a",source_team="x",team="q"', b'source="a",source_team="x",team="q"', 0),
    ],
)  # fmt: skip
def test_conflicts(engine, line, keep, overwrite, conflicts):
    """The name with its prefix is the one that may be there already."""
    for on_conflict, expected in (("keep", keep), ("overwrite", overwrite)):
        output, made = run(engine, b"m{%b} 1\n" % line, PREFIXES, on_conflict=on_conflict)
        assert output == b"m{%b} 1\n" % expected
        assert made.enricher.conflicts == conflicts


def test_a_label_that_two_prefixes_bring_conflicts_once(engine):
    """The sample bears it, and both namespaces would add it: one conflict, the first one's value."""
    line = b'm{source="a",target="b",of_team="q"} 1\n'
    output, made = run(engine, line, SAME, on_conflict="overwrite")
    assert output == b'm{source="a",target="b",of_tier="1",of_team="x"} 1\n'
    assert made.enricher.conflicts == 1


@pytest.mark.parametrize(
    ("setting", "line", "passes"),
    [
        (LIST, b'm{exported_namespace="a"} 1', True),
        (LIST, b'm{exported_namespace="a",namespace="b"} 1', True),
        (LIST, b'm{exported_namespace="b",namespace="a"} 1', False),
        (LIST, b'm{exported_namespace="",namespace="a"} 1', True),
        (LIST, b'm{exported_namespace=""} 1', False),
        (LIST, b"m 1", False),
        (LIST, b'm{exported_namespace="b",exported_namespace="b"} 1', True),  # not understood
        (PREFIXES, b'm{source="a",target="a"} 1', True),
        (PREFIXES, b'm{source="a",target="b"} 1', False),
        (PREFIXES, b'm{source="b",target="a"} 1', False),
        (PREFIXES, b'm{source="a",target=""} 1', True),
        (PREFIXES, b'm{namespace="a"} 1', False),
    ],
)  # fmt: skip
def test_selection_goes_by_the_same_labels(engine, setting, line, passes):
    """All namespaces that a sample names must be selected; one that names none is the cluster's."""
    chosen = Selection(namespaces=(Globs(("a",)),), cluster_samples=False)
    for cut in (None, 1, 9):
        for stripped in (chosen, Selection(**_fields(chosen), strip_timestamps=True)):
            output, made = run(engine, line + b"\n", setting, cut, selection=stripped)
            assert bool(output) is passes
            assert made.dropped["namespace"] == (not passes)


def _fields(chosen):
    return {"namespaces": chosen.namespaces, "cluster_samples": chosen.cluster_samples}


def test_the_info_metric_has_all_that_samples_name(engine):
    """Each namespace with its labels, without a prefix."""
    output, _ = run(engine, b'm{source="a",target="b"} 1\n', PREFIXES, info=True)
    assert b'kube_namespace_labels{namespace="a",label_team="x",' in output
    assert b'kube_namespace_labels{namespace="b",label_team="y",label_tier="1",' in output


def test_a_label_of_a_list_is_not_dropped(engine):
    """Without its first label a sample would get the labels of another namespace."""
    chosen = Selection(drop_labels=frozenset({b"exported_namespace"}))
    with pytest.raises(ValueError, match="must not be dropped"):
        Recipe(namespace_labels=LIST, selection=chosen)
    line = b'm{exported_namespace="a",q=""} 1\n'
    assert run(engine, line, ONE, selection=chosen)[0] == b'm{q=""} 1\n'


@pytest.mark.parametrize(
    ("names", "prefixes", "problem"),
    [
        ((), (), "one or more names"),
        ((b"a", b"a"), (), "each once"),
        ((b"a", b"b"), (b"x_",), "one prefix"),
    ],
)
def test_contradictions(names, prefixes, problem):
    """A setting that means nothing is refused."""
    with pytest.raises(ValueError, match=problem):
        NamespaceLabels(names, prefixes)
