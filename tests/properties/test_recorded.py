"""Expositions of kubelets and of kube-state-metrics, byte for byte, on both engines.

The expected bytes come from a substitution in each line, which suits the usual lines of these.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.simulator.state_metrics import state_metrics, usual_state
from tests.support.documents import ROOT
from tests.support.engines import counts, fed

CORPUS = ROOT.parent / "shared" / "corpus"
RECORDED = sorted(CORPUS.glob("*/*.prom"))
recorded = pytest.mark.parametrize(
    "path",
    RECORDED or [pytest.param(CORPUS, marks=pytest.mark.skip(reason=f"{CORPUS} is not here"))],
    ids=lambda path: path.relative_to(CORPUS).as_posix(),
)

STATE_METRICS = Path(__file__).parents[1] / "simulator" / "kube-state-metrics.prom"
NAMESPACE = re.compile(rb'[^#{]+\{(?:[^}]*,)?(namespace="([^"]+)")')
POD = re.compile(rb'[^#{]+\{(?:[^}]*,)?(pod="([^"]+)")')
CUTS = (None, 997)


def state_metrics_texts():
    """The copy at hand, and one of a larger cluster."""
    spaces = {f"space-{number}": {} for number in range(40)}
    nodes = tuple(f"node-{number}" for number in range(5))
    return STATE_METRICS.read_bytes(), b"".join(state_metrics(usual_state(spaces, nodes, 8)))


def labels_of(text):
    """Labels for each namespace of a text but every third one."""
    names = sorted(set(re.findall(rb'[{,]namespace="([^"]+)"', text)))
    return {
        name: b',team="of \\"%b\\"",tier="%d"' % (name, at)
        for at, name in enumerate(names)
        if at % 3
    }


def labelled(line, labels):
    """A line with the labels of its namespace."""
    found = NAMESPACE.match(line)
    added = labels.get(found[2], b"") if found else b""
    return line[: found.end(1)] + added + line[found.end(1) :] if added else line


def with_pod(line):
    """A line with the label of its pod."""
    found = POD.match(line) if NAMESPACE.match(line) else None
    return line[: found.end(1)] + of_pod(b"", found[2]) + line[found.end(1) :] if found else line


def of_pod(_, pod):
    """The label of a pod."""
    return b',workload="w of %b"' % pod


def samples(lines):
    """The number of lines that are samples: all but comments and blank ones."""
    return sum(line[:1] not in {b"", b"#"} for line in lines)


def check(engine, text, recipe, labels, expected):
    """The output and the counts of an engine are the expected ones, however the text is cut."""
    before = text.split(b"\n")
    for cut in CUTS:
        pipeline = Pipeline(
            lambda name: labels.get(name, b""),
            recipe,
            pods=of_pod if recipe.pods else None,
            engine=engine,
        )
        assert fed(pipeline, text, cut).split(b"\n") == expected
        enriched = sum(map(bytes.__ne__, expected, before))
        assert counts(pipeline) == (samples(before), enriched, 0, 0)
        assert not any(pipeline.dropped.values())


def check_all(engine, text):
    """With labels of namespaces, of pods, with both, and with none."""
    labels, lines = labels_of(text), text.split(b"\n")
    of_spaces = [labelled(line, labels) for line in lines]
    check(engine, text, Recipe(), labels, of_spaces)
    check(engine, text, Recipe(), {}, lines)
    check(engine, text, Recipe(pods=True), {}, [with_pod(line) for line in lines])
    both = [with_pod(line) for line in of_spaces]
    check(engine, text, Recipe(pods=True), labels, both)
    names = NamespaceLabels((b"absent", b"namespace"))
    check(engine, text, Recipe(namespace_labels=names), labels, of_spaces)


@recorded
def test_recorded_answers_of_kubelets(engine, path):
    """Exactly the lines with a namespace or a pod that has labels differ, by these labels."""
    check_all(engine, path.read_bytes())


def test_kube_state_metrics(engine):
    """The namespace stands at any place in the braces. Nodes have none."""
    for text in state_metrics_texts():
        check_all(engine, text)
        labels = labels_of(text)
        added = sum(labelled(line, labels) != line for line in text.split(b"\n"))
        assert added > 30
