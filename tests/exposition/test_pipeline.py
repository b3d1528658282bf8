"""The stages together: select, enrich, and the info metric at the end."""

from __future__ import annotations

import random

import pytest

from kmproxy.exposition.lines import GROWN, portions
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from tests.support import lines, reference
from tests.support.engines import fed

HELP = (
    b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.\n"
    b"# TYPE kube_namespace_labels gauge\n"
)
LABELS = {b"a": b',team="x",tier="1"', b"b": b""}


def run(engine, text, cut=None, selection=None, **options):
    """The output of a pipeline for a text, whole or in pieces."""
    pipeline = Pipeline(
        lambda namespace: LABELS.get(namespace, b""),
        Recipe(selection=selection or Selection(), **options),
        engine=engine,
    )
    return fed(pipeline, text, cut)


def test_what_is_not_asked_for_is_not_there():
    """Without a selection and the info metric only the enricher runs."""
    pipeline = Pipeline(dict.get, Recipe(), engine="pure")
    assert pipeline.selector is None
    assert pipeline._info is None


INFO = (
    HELP
    + b'kube_namespace_labels{namespace="a",label_team="x",label_tier="1",instance="",node="",pod=""} 1\n'
    + b'kube_namespace_labels{namespace="b",instance="",node="",pod=""} 1\n'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'm{namespace="b"} 1\nm{namespace="a"} 1\n',
         b'm{namespace="b"} 1\nm{namespace="a",team="x",tier="1"} 1\n' + INFO),
        (b'm{namespace="b"} 1\nm{namespace="a"} 1',
         b'm{namespace="b"} 1\nm{namespace="a",team="x",tier="1"} 1\n' + INFO),
        (b'm{namespace="b"} 1\nm{ namespace="a"} 1\n# EOF\n',
         b'm{namespace="b"} 1\nm{ namespace="a",team="x",tier="1"} 1\n' + INFO + b"# EOF\n"),
        (b"# EOF", HELP + b"# EOF"),
        (b"# EOF\nm 1\n", b"# EOF\nm 1\n" + HELP),
        (b"# EOFX\n", b"# EOFX\n" + HELP),
        (b"# E", b"# E\n" + HELP),
        (b"m 1 # EOF", b"m 1 # EOF\n" + HELP),
        (b"m 1\n\n", b"m 1\n\n" + HELP),
        (b'm{namespace=""} 1\nm{namespace="",team="y"} 1\n', b'm{namespace=""} 1\nm{namespace="",team="y"} 1\n' + HELP),
        (b"", HELP),
        (b'{namespace="c""m"} 1\n', b'{namespace="c""m"} 1\n' + HELP + b'kube_namespace_labels{namespace="c",instance="",node="",pod=""} 1\n'),
        (b'm{namespace="q\\"\\\\"} 1\n',
         b'm{namespace="q\\"\\\\"} 1\n' + HELP + b'kube_namespace_labels{namespace="q\\"\\\\",instance="",node="",pod=""} 1\n'),
    ],
)  # fmt: skip
def test_the_info_metric(engine, text, expected):
    """A sample per seen namespace, sorted, as the last family, before OpenMetrics' end mark."""
    for cut in (None, 1, 2, 5, 13):
        assert run(engine, text, cut, info=True) == expected


def test_only_the_namespaces_of_the_answer(engine):
    """Namespaces of dropped or unparsed lines are not seen."""
    text = b'm{namespace="a"} 1\nm{namespace="b"} 1\nm{namespace="c" 1\n'
    chosen = Selection(exclude_namespaces=Globs(("a",)))
    assert run(engine, text, selection=chosen, info=True) == (
        b'm{namespace="b"} 1\nm{namespace="c" 1\n'
        + HELP
        + b'kube_namespace_labels{namespace="b",instance="",node="",pod=""} 1\n'
    )


def test_labels_are_selected_before_they_are_added(engine):
    """A dropped label can be added again from the namespace."""
    text = b'm{namespace="a",team="old"} 1\n'
    chosen = Selection(drop_labels=frozenset({b"team"}))
    assert run(engine, text, selection=chosen) == b'm{namespace="a",team="x",tier="1"} 1\n'
    assert run(engine, text[:-1], selection=chosen) == b'm{namespace="a",team="x",tier="1"} 1'


@pytest.mark.parametrize(
    "end", [b"# EOF" + b"\n" * 99_999, b"# EOF" + b"x" * 99_999, b"\n" * 99_999]
)
def test_what_looks_like_an_end_is_not_held(engine, end):
    """At most the end mark itself waits for the end, whatever follows it."""
    pipeline = Pipeline(dict.get, Recipe(info=True, max_line=1000), engine=engine)
    passed = 0
    for at in range(0, len(end), 777):
        passed += len(pipeline.feed(end[at : at + 777]))
        assert passed >= at - 1000
        assert len(pipeline._info._held) <= len(b"# EOF\n")
    assert pipeline.finish().endswith(HELP)


@pytest.mark.parametrize("seed", range(10))
def test_the_plain_reading_agrees(engine, seed):
    """All stages agree with the reference reader on random and broken lines."""
    rng = random.Random(seed)
    labels = lines.LABELS
    chosen = Selection(
        exclude_namespaces=Globs(("sh*",)), drop_labels=frozenset({b"pod"}), strip_timestamps=True
    )
    for _ in range(40):
        odd = rng.choice([*lines.ODD_SPACES, b"web"])
        text = b'm{namespace="%b",pod="p"} 1 5\n' % odd + lines.random_text(
            rng, rng.randrange(1, 40)
        )
        text += rng.choice([b"", b"", b"# EOF", b"# EOF\n", b"\n# EOF\n"])
        slow = reference.Selector(
            wants_metric=lambda _: True,
            wants_namespace=lambda space: space[:2] != b"sh",
            drop_labels=(b"pod",),
            strip=True,
        )
        enriched = reference.enrich(reference.select(text, slow), labels).output
        expected = reference.with_info(enriched, labels)
        for cut in (len(text), 1, rng.randrange(1, 60)):
            pipeline = Pipeline(
                lambda space: b"".join([b",%b=%b" % pair for pair in labels.get(space, ())]),
                Recipe(selection=chosen, info=True, max_line=lines.MAX_LINE),
                engine=engine,
            )
            assert fed(pipeline, text, cut) == expected


def test_portions_by_what_they_become():
    """Long labels make portions smaller, so no portion grows without bound."""
    piece = b'm{namespace="a"} 1\n' * 3000
    assert list(portions(piece, 20)) == list(portions(piece))
    cut = list(portions(piece, 8192))
    assert b"".join(cut) == piece
    assert max(len(each) + 8192 * each.count(b"\n") for each in cut) <= GROWN + 8192
