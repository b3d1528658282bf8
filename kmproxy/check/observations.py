"""Observations of an exposition by a preflight: examples, and samples that will get no label.

Knows lines of samples. Must not know how the lines are fetched or shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from kmproxy.exposition.grammar import Sample, unquote
from kmproxy.exposition.namespace_labels import NamespaceLabels

EXAMPLES = 3

PROVIDER = b"kubelet_metrics_provider"
"""The metric by which a kubelet names the source of its containers' metrics."""


LONGEST = 1 << 20
"""Bytes of the longest line that is read."""

MAX_SHAPES = 10_000
MAX_SHAPE_BYTES = 4 << 20

_VALUE = re.compile(rb'(=[ \t]*+)"(?:[^"\\\n]|\\[^\n])++"')  # of a label, not empty


class Lines:
    """Cuts pieces into lines. An empty line replaces a line longer than `LONGEST`."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece. Returns the lines that end in it."""
        *lines, rest = data.split(b"\n")
        if lines:
            if self._size + len(lines[0]) <= LONGEST:
                lines[0] = b"".join([*self._held, lines[0]])
            else:
                lines[0] = b""
            if len(data) > LONGEST:
                lines = [line if len(line) <= LONGEST else b"" for line in lines]
            self._held, self._size = [], 0
        self._size += len(rest)
        if self._size <= LONGEST:
            self._held.append(rest)
        else:
            self._held.clear()
        return lines


class Examples:
    """Up to `EXAMPLES` enriched samples, of different namespaces if there are enough namespaces.

    `seen` maps namespaces to the labels that their samples got. `labels` name the namespaces of a
    sample.
    """

    def __init__(self, seen: Mapping[bytes, bytes], labels: NamespaceLabels | None = None) -> None:
        self._seen = seen
        self._labels = labels or NamespaceLabels()
        self._lines = Lines()
        self._first: dict[bytes, bytes] = {}  # namespace -> its first sample
        self._others: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece of the exposition that would be served."""
        if len(self._first) >= EXAMPLES:
            return
        for line in self._lines.feed(data):
            namespace = self._namespace(line)
            if not namespace:
                continue
            if self._first.setdefault(namespace, line) is not line:
                if len(self._others) < EXAMPLES:
                    self._others.append(line)
            elif len(self._first) >= EXAMPLES:
                return

    def best(self) -> list[bytes]:
        """The chosen lines."""
        return [*self._first.values(), *self._others][:EXAMPLES]

    def _namespace(self, line: bytes) -> bytes:
        """The first namespace by which a line got a label, or empty."""
        if not any(name in line for name in self._labels.names):
            return b""
        borne = _borne(Sample.parse(line))
        naming = (borne[name] for name in self._labels.naming(borne))
        return next((each for each in naming if self._seen.get(each)), b"")


class LabelCounts:
    """Counts the samples that bear each of some labels, not empty, and all samples.

    Lines that differ only in values are read once. At most `MAX_SHAPES` different lines are
    remembered, of `MAX_SHAPE_BYTES` together.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        self.counts = dict.fromkeys(names, 0)
        self.samples = 0
        self._lines = Lines()
        self._shapes: Counter[bytes] = Counter()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of an exposition. A line has to end in a newline to be counted."""
        block = _VALUE.sub(rb'\1"x"', b"\n".join(self._lines.feed(data)))
        for line in block.split(b"\n"):
            if not line or line.startswith(b"#"):
                continue
            shape = line[: line.find(b"}") + 1]
            if not shape:
                self.samples += Sample.parse(line) is not None
                continue
            if shape not in self._shapes:
                self._size += len(shape)
            self._shapes[shape] += 1
            if len(self._shapes) > MAX_SHAPES or self._size > MAX_SHAPE_BYTES:
                self._fold()

    def finish(self) -> None:
        """End the exposition."""
        self.feed(b"\n")
        self._fold()

    def _fold(self) -> None:
        for shape, count in self._shapes.items():
            sample = Sample.parse(shape + b" 1")
            self.samples += count if sample else 0
            borne = _borne(sample)
            for name in borne.keys() & self.counts.keys():
                if borne[name]:
                    self.counts[name] += count
        self._shapes.clear()
        self._size = 0


def _borne(sample: Sample | None) -> dict[bytes, bytes]:
    """The labels of a sample, unescaped."""
    return {name: unquote(pair["value"]) for name, pair in sample.labels()} if sample else {}


class Nameless:
    """Counts samples of control groups that have an `id` label and no `namespace` label.

    A label `namespace` with an empty value counts as a label.
    cAdvisor puts the label on every sample. Container runtimes that take its place may not.
    """

    def __init__(self) -> None:
        self._lines = Lines()
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of an exposition."""
        for line in self._lines.feed(data):
            if b'id="' not in line or b'namespace="' in line or line.startswith(b"#"):
                continue
            sample = Sample.parse(line)
            names = {name for name, _ in sample.labels()} if sample else set()
            self.count += b"id" in names and b"namespace" not in names


class Provider:
    """Finds the source of a kubelet's container metrics.

    `name` is the source, such as `cadvisor` or `cri`, or None if it is unknown.
    """

    def __init__(self) -> None:
        self._lines = Lines()
        self.name: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the kubelet's own metrics."""
        for line in self._lines.feed(data):
            sample = Sample.parse(line) if line.startswith(PROVIDER) else None
            for name, pair in sample.labels() if sample else ():
                if name == b"provider" and line.rstrip().endswith(b" 1"):
                    self.name = unquote(pair["value"]).decode(errors="replace")
