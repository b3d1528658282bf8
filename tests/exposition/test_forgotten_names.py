"""More names and texts than an engine remembers: each line is still read by its own."""

from __future__ import annotations

import random

from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from tests.support.engines import counts, fed

SPACES = 700
LABELS = 20  # of a namespace: many short ones take more memory than their bytes


def added(number):
    """The labels of a namespace, or of a pod, with a number. Those of one in four differ in size."""
    many = LABELS + number % 4 // 3
    return b"".join([b',l%d="%d"' % (label, number) for label in range(many)])


def of_space(name):
    """The labels of a namespace."""
    return added(int(name[1:]))


def of_pod(space, pod):
    """The labels of a pod. Those of one in five have none."""
    number = int(space[1:]) + int(pod)
    return b',pod_label="%d"' % number if number % 5 else b""


def check(engine, recipe, lines, expected):
    """A text is read rightly, in one piece and in several."""
    for cut in (None, 30_000):
        pipeline = Pipeline(of_space, recipe, pods=of_pod, engine=engine)
        assert fed(pipeline, b"".join(lines), cut) == b"".join(expected)
        assert counts(pipeline) == (len(lines), len(lines), 0, 0)


def numbers():
    """Numbers of lines: some that come at once again, in parts, and all of them at random."""
    rng = random.Random(7)
    for start in range(0, 6000, 500):
        for _ in range(3):
            yield from range(start, start + 500)
        yield from (rng.randrange(start + 500) for _ in range(300))
    for number in range(0, 6000, 7):
        yield from (number, number)


def test_labels_of_namespaces(engine):
    """The labels of all namespaces do not fit, and not all texts in braces that come again."""
    lines, expected = [], []
    for at, number in enumerate(numbers()):
        space = number % SPACES
        lines.append(b'm{namespace="n%d",a="%d"} %d\n' % (space, number, at))
        expected.append(b'm{namespace="n%d"%b,a="%d"} %d\n' % (space, added(space), number, at))
    check(engine, Recipe(), lines, expected)


def test_labels_of_pods(engine):
    """The same with two sorts of labels, which are forgotten together."""
    lines, expected = [], []
    for number in numbers():
        space = number % SPACES
        lines.append(b'm{namespace="n%d",pod="%d"} 1\n' % (space, number))
        labels = of_pod(b"n%d" % space, b"%d" % number)
        expected.append(
            b'm{namespace="n%d"%b,pod="%d"%b} 1\n' % (space, added(space), number, labels)
        )
    check(engine, Recipe(pods=True), lines, expected)


def test_verdicts(engine):
    """Metrics and namespaces that are selected, and others, more than fit."""
    selection = Selection(
        drop_metrics=(Globs(("*_x",)),), exclude_namespaces=Globs(("*-x",)), cluster_samples=False
    )
    long = b"y" * 300
    lines, expected = [], []
    for number in [*range(5000), *range(0, 5000, 3)]:
        metric = b"m%d_%b_%b" % (number, long, b"x" if number % 3 else b"z")
        space = b"n%d-%b" % (number, b"x" if number % 2 else b"z")
        line = b'%b{namespace="%b"} 1\n' % (metric, space)
        lines.append(line)
        expected += [line] * (number % 3 == 0 and number % 2 == 0)
    for cut in (None, 30_000):
        pipeline = Pipeline(lambda _: b"", Recipe(selection=selection), engine=engine)
        assert fed(pipeline, b"".join(lines), cut) == b"".join(expected)
        metrics = sum(b"_x{" in line for line in lines)
        assert pipeline.dropped["metric"] == metrics
        assert pipeline.dropped["namespace"] == len(lines) - metrics - len(expected)
