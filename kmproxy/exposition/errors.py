"""The errors that end an exposition: its rest cannot be served rightly.

Knows the reasons. Must not know how a scrape ends. A message is a plain line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import ClassVar

from kmproxy.exposition.grammar import Sample

MAX_REPEATS = 8
"""How many pairs of one sample may repeat labels that are overwritten. Each gets the new value."""


class ExpositionError(Exception):
    """An exposition cannot be served to its end. The message is a plain line.

    `reason` is the value of a metric's label. `details` is a message for the log: the message
    itself, or one that names a part of the exposition.
    """

    reason: ClassVar[str]

    @property
    def details(self) -> str:
        """The message for the log."""
        return str(self)


class RepeatedLabelError(ExpositionError):
    """A sample repeats labels that are overwritten, more than `MAX_REPEATS` times.

    With a new value for each of them, the line could grow without a bound. Prometheus refuses
    a label that stands twice. `label` is the name at the first pair over the limit, `metric`
    the name of the sample, unescaped.
    """

    reason = "repeated_label"

    def __init__(self, label: bytes, metric: bytes = b"") -> None:
        self.label = label
        self.metric = metric
        super().__init__(
            f"a sample repeats the label {_shown(label)}, which --on-conflict=overwrite replaces: "
            "mend its exporter, or leave the metric out by --drop-metric"
        )

    def of(self, line: bytes) -> RepeatedLabelError:
        """Returns the same error of a sample line, without its newline, with the metric's name."""
        sample = Sample.parse(line)
        return RepeatedLabelError(self.label, sample.name if sample else b"")

    @property
    def details(self) -> str:
        """The message for the log, which names the metric."""
        return f"{self}; the metric is {_shown(self.metric)}"


def _shown(name: bytes) -> str:
    """Returns a name, in quotes and shortened, with the characters spelled out that end a line."""
    return ascii(name[:200].decode(errors="replace")) + "..." * (len(name) > 200)


def require_few_repeats(names: Iterable[bytes], overwritten: Collection[bytes]) -> None:
    """Raises RepeatedLabelError if the names of a sample's pairs repeat these labels too often.

    The error has no metric.
    """
    left, seen = MAX_REPEATS, set[bytes]()
    for name in names:
        if name in overwritten:
            left -= name in seen
            seen.add(name)
            if left < 0:
                raise RepeatedLabelError(name)
