"""Lines as the parsers of the Prometheus server read them, one by one.

The program `textparse` of tests/cluster has these parsers. `make engine-tools` builds it.
"""

from __future__ import annotations

import struct
import subprocess

import msgspec

from tests.support.programs import which


class Reading(msgspec.Struct):
    """A line in one format: its labels, name and value in turns, or why it is not a sample."""

    labels: list[str] = []
    ms: int | None = None
    reason: str = ""

    @property
    def pairs(self):
        """The labels as pairs of name and value, sorted, with the metric's name."""
        return sorted(zip(self.labels[::2], self.labels[1::2], strict=True))


_DECODER = msgspec.json.Decoder(tuple[Reading, Reading])


def read(lines):
    """The readings of each line: as the text format, and as OpenMetrics."""
    given = b"".join([struct.pack(">I", len(line)) + line for line in lines])
    done = subprocess.run([which("textparse")], input=given, capture_output=True, check=True)
    return [_DECODER.decode(answer) for answer in done.stdout.splitlines()]
