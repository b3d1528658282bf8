"""The lines of one container that were given out, and the position of the acknowledged ones.

Knows marks, positions and counts. Must not know files or requests.

Invariants:
- A line that was acknowledged before a restart is not given out again: while an open line is read
  again from its start, everything up to the saved place is left out.
- The position moves only over acknowledged lines, and over bytes without lines once all lines
  before them are acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kmproxy.logs.cri import CriReader, Entry
from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.positions import FilePosition, Open, Point


class FileMark(Mark, frozen=True, gc=False):
    """A mark with the place behind its line."""

    instance: int
    after: str
    offset: int
    back: int
    crc: int
    open: Open

    @property
    def position(self) -> FilePosition:
        """The position if all lines up to this one are acknowledged."""
        done = Point(self.after, self.offset, self.back, self.crc)
        return FilePosition(self.instance, done, self.open.start, self.open.skipping)


Read = list[tuple[Line, FileMark]]
"""Lines in the order of the file, each with its mark."""


@dataclass(slots=True)
class Tally:
    """Counts, which many readers may share."""

    lines: int = 0
    bytes: int = 0
    """Bytes of the lines' texts."""
    cut: int = 0
    unfinished: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """By reason. `not_cri` and `too_old` count lines. The others count gaps of unknown length:
    `rotated` (a rotated file was deleted before its end was read), `truncated` (a file lost its
    bytes), `deleted` (an instance's files were deleted, and what was known of them had not been
    read), `unseen` (they were deleted before the instance's end was known, and all that was there
    at the last look had been read), `damaged` (a compressed file is). A gap counts if lines may
    have been lost: perhaps none were. Nobody can know of bytes that were written to a file and
    truncated before any byte of that file was read."""


class Progress:
    """Gives marks to lines and keeps the position of one container.

    `oldest` is in nanoseconds since 1970: older lines are counted and left out. It holds only
    without a position.
    """

    def __init__(
        self, container: Container, position: FilePosition | None, tally: Tally, oldest: int
    ) -> None:
        self._container = container
        self._tally = tally
        self._oldest = 0 if position else oldest
        self._given = self._acknowledged = 0
        self._saved = position
        self._until = position if position and position.start else None
        self.newest = 0
        """The time of the last line that was given out, in nanoseconds since 1970."""

    @property
    def is_repeating(self) -> bool:
        """Whether bytes are read again that were read before the restart."""
        return self._until is not None

    def acknowledge(self, mark: Mark) -> None:
        """Move the position behind a line. A mark older than the last one changes nothing."""
        if isinstance(mark, FileMark) and mark.number > self._acknowledged:
            self._acknowledged = mark.number
            self._saved = mark.position

    def position(self, instance: int, cri: CriReader) -> FilePosition | None:
        """Return the position, when `cri` has read so far. None if nothing is known yet."""
        if self._acknowledged < self._given or self._until or instance < 0:
            return self._saved
        return FilePosition(instance, cri.place, cri.open.start, cri.open.skipping)

    def lose(self, reason: str) -> None:
        """Count a gap."""
        self._tally.lost[reason] += 1

    def feed(self, data: bytes, instance: int, cri: CriReader) -> Read:
        """Give out the lines that end in further bytes of a file."""
        if self._until and cri.after == self._until.done.after:
            again = max(self._until.done.offset - cri.offset, 0)
            if again > len(data):
                cri.feed(data, is_again=True)
                return []
            cri.feed(data[:again], is_again=True)
            cri.begin(self._until.done)
            self.arrive(cri, self._until.done)
            data = data[again:]
        return self.give(cri.feed(data, is_again=self.is_repeating), instance, cri.after)

    def arrive(self, cri: CriReader, point: Point) -> None:
        """Stop leaving out lines if a point is at or behind the saved place."""
        if self._until and point.order >= self._until.done.order:
            cri.restore(self._until.skipping)
            self._until = None

    def skip(self) -> FilePosition | None:
        """Give up what is read again, and return the saved position. None if there is none."""
        until, self._until = self._until, None
        return until

    def give(self, entries: Iterable[Entry], instance: int, after: str) -> Read:
        """Give out the lines of entries."""
        if self._until:
            return []
        given: Read = []
        number, container, oldest, tally = self._given, self._container, self._oldest, self._tally
        count = 0
        for each in entries:
            if not each.stream or each.time < oldest:
                tally.lost["too_old" if each.stream else "not_cri"] += 1
                continue
            if each.fault:
                tally.cut += each.fault == "cut"
                tally.unfinished += each.fault == "unfinished"
            number += 1
            count += len(each.text)
            line = Line(container, instance, each.stream, each.time, each.text)
            given.append((line, FileMark(number, instance, after, each.end, each.back, each.crc,
                                         each.open)))  # fmt: skip
        if given:
            self.newest = given[-1][0].time
            tally.lines += len(given)
            tally.bytes += count
            self._given = number
        return given
