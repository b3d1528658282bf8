"""The info metric and expositions that have its family already."""

from __future__ import annotations

import random

import pytest

from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from tests.support import lines, reference
from tests.support.engines import fed

LABELS = {b"a": [(b"team", b'"x"')]}
SAMPLE = b'm{namespace="a"} 1\n'


def run(engine, text, cut=None, **options):
    """What a pipeline with the info metric makes of a text, in pieces."""
    recipe = Recipe(info=True, **options)
    labels = {b"a": b',team="x"'}
    return fed(Pipeline(lambda space: labels.get(space, b""), recipe, engine=engine), text, cut)


@pytest.mark.parametrize(
    "line",
    [
        b"# TYPE kube_namespace_labels gauge",
        b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.",
        b"\t#  HELP\tkube_namespace_labels",
        b'# TYPE "kube_namespace_labels" gauge',
        b"kube_namespace_labels 1",
        b'kube_namespace_labels{label_team="x"} 1',
        b' kube_namespace_labels {label_team="x"} 1 5',
        b'{"kube_namespace_labels",label_team="x"} 1',
        b'{label_team="x","kube_namespace_labels"} 1',
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"", b"\n# EOF\n"])
def test_the_family_is_not_added_twice(engine, line, end):
    """However a line of it is spelled, and wherever it stands, the exposition is left as it is."""
    for text in (line + end, SAMPLE + line + end, line + b"\n" + SAMPLE + end.lstrip(b"\n")):
        expected = reference.enrich(text, LABELS).output
        for cut in (None, 1, 7, 23):
            assert run(engine, text, cut) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"# TYPE kube_namespace_labels_total gauge",
        b"# kube_namespace_labels",
        b"# EOF kube_namespace_labels",
        b"kube_namespace_labels_x 1",
        b"x_kube_namespace_labels 1",
        b'm{a="kube_namespace_labels"} 1',
        b'm{kube_namespace_labels="a"} 1',
        b"kube_namespace_labels x",
        b'm{a="\\nkube_namespace_labels 1"} 1',
    ],
)
def test_other_lines_are_not_of_the_family(engine, line):
    """Its name in another place does not count."""
    for cut in (None, 1, 7):
        assert run(engine, line + b"\n" + SAMPLE, cut).endswith(
            b'kube_namespace_labels{namespace="a",label_team="x",instance="",node="",pod=""} 1\n'
        )


def test_what_is_not_served_does_not_count(engine):
    """A family that the selection leaves out is added."""
    text = b"# TYPE kube_namespace_labels gauge\nkube_namespace_labels 1\n" + SAMPLE
    chosen = Selection(drop_metrics=(Globs(("kube_*",)),))
    assert run(engine, text, selection=chosen).count(b"\nkube_namespace_labels{") == 1


@pytest.mark.parametrize("cut", [None, 1, 30, 31, 99, 100, 101])
def test_a_long_line_of_the_family(engine, cut):
    """Of a line above the limit the beginning is read, however it is cut."""
    for line in (
        b"# HELP kube_namespace_labels " + b"x" * 200,
        b'kube_namespace_labels{a="%b"} 1' % (b"x" * 200),
    ):
        assert run(engine, line + b"\n", cut, max_line=60) == line + b"\n"
        assert run(engine, line, cut, max_line=60) == line
    other = b"# HELP kube_namespace_labels_x " + b"x" * 200
    assert run(engine, other, cut, max_line=60).startswith(
        other + b"\n# HELP kube_namespace_labels "
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_plain_reading_agrees(engine, seed):
    """On random and broken lines, of which some are of the family."""
    rng = random.Random(seed)
    for _ in range(60):
        text = lines.random_text(rng, rng.randrange(1, 12))
        for _ in range(3):
            names = rng.choice([b"m", b"up", b"x_bucket"]), b"kube_namespace_labels"
            text = text.replace(*names, rng.randrange(2))
        expected = reference.with_info(reference.enrich(text, LABELS).output, LABELS)
        for cut in (None, 1, rng.randrange(1, 60)):
            assert run(engine, text, cut) == expected
