"""The place that reading has reached in one container's log, and what is known of its files.

Knows the state of a reader, and how it begins at a place. Must not know which file comes next.
"""

from __future__ import annotations

from kmproxy.logs.cri import CriReader
from kmproxy.logs.exchange import Response
from kmproxy.logs.lines import Container, Mark
from kmproxy.logs.listing import Rotated
from kmproxy.logs.looks import Looks
from kmproxy.logs.open_lines import OpenLines
from kmproxy.logs.pace import Pace
from kmproxy.logs.positions import FilePosition, Point
from kmproxy.logs.progress import Progress, Read, Tally
from kmproxy.logs.unpacking import PackedFile

KEPT = 4
"""Rotated files of an instance that the kubelet keeps by default. It deletes older ones."""


class Cursor:
    """The state of the reading of one container's log."""

    def __init__(
        self, container: Container, position: FilePosition | None, tally: Tally,
        *, max_line: int, oldest: int = 0, kept: int = KEPT, opened: OpenLines | None = None,
        is_behind: bool = True,
    ) -> None:  # fmt: skip
        self.container = container
        self.due = 0.0
        self.lag = 0
        """Bytes of the file that were not read at the last look."""
        self.finished = False
        """Whether the last instance of a deleted pod was read to its end."""
        self._folder = (
            f"/logs/pods/{container.namespace}_{container.pod}_{container.uid}/{container.name}/"
        )
        self._pace = Pace()
        self._cri = CriReader(max_line, opened)
        self._progress = Progress(container, position, tally, oldest)
        self._kept = kept
        self._looks = Looks()
        self._restarts = self._looks.restarts
        self._instance = position.instance if position else -1
        self._is_first = position is None  # what was deleted before the first look is no loss
        self.is_read = False
        """Whether the last instance was read to its end, and nothing follows yet."""
        self._is_checking = False  # whether a last listing of a deleted pod shows more instances
        self._rotated: list[Rotated] = []  # by the last listing, behind the last finished one
        self._successor: float | None = None  # when the successor of `_file` was seen
        self._is_listing = position is None
        self._asked = 0.0
        self._go_to((position.start or position.done) if position else Point())
        self._looks.is_behind = is_behind
        if position and not position.start:
            self._cri.restore(position.skipping)

    def _go_to(self, point: Point) -> None:
        """Read on at a point whose file is not known yet."""
        self._looks.begin()
        self.lag = 0
        self._point = point  # behind the bytes that were read; of a packed file, where it began
        self._cri.begin(point)
        self._progress.arrive(self._cri, point)
        self._file: Rotated | None = None  # None: the file that the instance writes to
        self._is_found = False  # `_file` has the evidence
        self._untried: list[Rotated] = []  # may be the file that is looked for, if `_file` is not
        self._packed: PackedFile | None = None
        self._held: tuple[Response, float] | None = None  # and when it was asked for
        self._is_other = False  # the file that is looked for is not the one that is written to
        self._was_rotated = False  # the file that is looked for had been found as a rotated one
        self._is_counted = False  # a gap before this file was
        self._doubts = 0  # how often the file was looked for and not found

    def __repr__(self) -> str:
        place = self._cri.place
        return f"<LogReader {self._instance}.log after {place.after or '-'} at {place.offset}>"

    @property
    def position(self) -> FilePosition | None:
        """Where a new reader goes on. None if nothing is known of the container yet."""
        return self._progress.position(self._instance, self._cri)

    @property
    def newest(self) -> int:
        """The time of the last line, in nanoseconds since 1970; 0 without one."""
        return self._progress.newest

    @property
    def is_docker(self) -> bool:
        """Whether the files hold docker's JSON lines, which are not supported."""
        return self._cri.is_docker

    @property
    def is_behind(self) -> bool:
        """Whether bytes were not read at the last look, or may not have been."""
        return self._looks.is_behind

    @property
    def has_backlog(self) -> bool:
        """Whether `resume` may give lines of bytes that were fetched already."""
        return self._packed is not None and self._packed.has_more

    @property
    def has_bytes(self) -> bool:
        """Whether bytes are held whose lines the next step gives."""
        return self._held is not None or self.has_backlog

    def acknowledge(self, mark: Mark) -> None:
        """Say that a line and all lines before it were taken, or left out and counted."""
        self._progress.acknowledge(mark)

    def _ended(self) -> float | None:
        """Return the time at which the instance was seen to have ended, or None."""
        return self._restarts.ended(self._instance)

    def _rest(self, now: float, *, is_active: bool) -> None:
        is_ending = self._looks.is_urgent(self._instance, now)
        self.due = now + self._pace.next(is_active=is_active, is_ending=is_ending)

    def _end_open(self) -> Read:
        """Give out the open lines, which nothing follows."""
        entries = [*self._cri.end_file(), *self._cri.end()]
        return self._progress.give(entries, self._instance, self._cri.after)
