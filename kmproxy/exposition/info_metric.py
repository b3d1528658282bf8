"""The info metric: one series for each namespace, with its labels, at the end of an exposition.

Knows the spelling of kube-state-metrics and the end of an exposition. Must not know where labels
come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmproxy.exposition.base_enricher import BaseEnricher
from kmproxy.exposition.grammar import PAIR, Sample, escape
from kmproxy.exposition.lines import MAX_LINE, LineFilter

_NAME = b"kube_namespace_labels"
_BEGINNING = re.compile(
    rb'[ \t]*+(?:\#[ \t]++(?:HELP|TYPE|UNIT)[ \t]++(?:%(n)b|"%(n)b")(?![a-zA-Z0-9_:])'
    rb'|%(n)b[ \t{]|\{[ \t]*+"%(n)b")' % {b"n": _NAME}
)
"""Expression for the beginning of a line of the family: its metadata, or mostly its sample."""

_NO_TARGET = b',instance="",node="",pod=""'


def info_metric(seen: Mapping[bytes, bytes]) -> bytes:
    """Writes a family with one sample per namespace, spelled as kube-state-metrics does.

    `seen` maps namespaces to the bytes that are added to their samples, as
    `Enricher.seen` does. Each label name gets the prefix `label_`. The labels by
    which Prometheus tells targets apart are present and empty. So, where Prometheus
    honors labels, the series of a namespace is the same from every node.
    """
    lines = [
        b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.",
        b"# TYPE kube_namespace_labels gauge",
    ]
    for namespace in sorted(seen):
        pairs = [
            b",label_%b=%b" % pair.group("name", "value") for pair in PAIR.finditer(seen[namespace])
        ]
        lines.append(
            b'kube_namespace_labels{namespace="%b"%b%b} 1'
            % (escape(namespace), b"".join(pairs), _NO_TARGET)
        )
    return b"\n".join(lines) + b"\n"


_END = b"# EOF\n"


class _FamilyFinder(LineFilter):
    """Finds out whether an exposition has the family already. Its output means nothing.

    A line of the family is a sample with its name, or its HELP, TYPE or UNIT line. Of a line
    that is longer than `max_line` only the beginning is read.
    """

    def __init__(self, max_line: int) -> None:
        super().__init__(max_line)
        self.found = False

    def _block(self, block: bytes) -> bytes:
        if not self.found and _NAME in block:
            self.found = any(_NAME in line and _is_of_family(line) for line in block.split(b"\n"))
        return b""

    def _line(self, line: bytes) -> bytes:
        if len(line) <= self._max_line:
            return self._block(line)
        self.found |= _BEGINNING.match(line[: self._max_line + 1]) is not None
        return b""


def _is_of_family(line: bytes) -> bool:
    if line.lstrip(b" \t").startswith(b"#"):
        return _BEGINNING.match(line) is not None
    sample = Sample.parse(line)
    return sample is not None and sample.name == _NAME


class InfoStage:
    """Adds the info metric at the end, before OpenMetrics' end marker if the input has one.

    An exposition that has the family already is left as it is: kube-state-metrics may serve it.
    Between calls the stage holds at most the bytes of that marker, and the copy of one
    unfinished line of `max_line` bytes.
    """

    def __init__(self, enricher: BaseEnricher, max_line: int = MAX_LINE) -> None:
        self._enricher = enricher
        self._family = _FamilyFinder(max_line)
        self._held = b""  # the last line so far, if it is the marker or its beginning
        self._whole = True  # whether the bytes passed on end in a newline

    def feed(self, data: bytes) -> bytes:
        """Take enriched bytes; return the bytes that can be passed on."""
        if not self._family.found:
            self._family.feed(data)
        data = self._held + data
        start = data.rfind(b"\n", max(0, len(data) - len(_END) - 1), max(0, len(data) - 1)) + 1
        at_line = self._whole if start == 0 and len(data) <= len(_END) else start > 0
        self._held = data[start:] if at_line and _END.startswith(data[start:]) else b""
        passed = data[: len(data) - len(self._held)]
        if passed:
            self._whole = passed.endswith(b"\n")
        return passed

    def finish(self, data: bytes) -> bytes:
        """Take the last bytes; return the rest and the info metric."""
        passed, end = self.feed(data), self._held
        self._family.finish()
        if self._family.found:
            return passed + end
        if end.rstrip(b"\n") != _END[:-1]:
            passed, end = passed + end, b""
        whole = passed.endswith(b"\n") if passed else self._whole
        return passed + (b"" if whole else b"\n") + info_metric(self._enricher.seen) + end
