"""Reads one container's log from the API server's pods/log, over restarts and reconnections.

Knows which request is next, which of its lines were read before, and what the position is. Must not
know sockets, lists of pods or the endpoint. Times in seconds are passed in.

Invariants:
- A line that was acknowledged before a crash is not given out again, and none is given out twice by
  one reader, unless two different logs have one checksum.
- What may have been lost is counted, if the API shows it. A rotation while the log is followed is
  not shown.
"""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

from kmproxy.kube.backoff import Backoff
from kmproxy.logs.api_text import TextReader, TimedLine, Window, add_line
from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.open_lines import OpenLines
from kmproxy.logs.positions import ApiPosition
from kmproxy.logs.progress import Tally

SETTLE: Final = 2.0
"""Seconds after an answer that is not the log which was expected, until it is asked for again. The
container may have been restarted, which the next status shows."""

SOON: Final = 0.5
"""Seconds, at most, from the news of a restart to the request for what it left behind."""


class ApiMark(Mark, frozen=True, gc=False):
    """A mark with the position behind its line."""

    position: ApiPosition


class ApiRequest(msgspec.Struct, frozen=True):
    """A GET of pods/log. `since` is in seconds since 1970, None for the whole log."""

    previous: bool
    follow: bool
    since: int | None


Read = list[tuple[Line, ApiMark]]


class ApiReader:
    """The log of one container. `oldest`, in nanoseconds, holds only without a position.

    The caller takes a `request` when it is `due`, hands the bytes of the answer to `feed`, and says
    how it ended: `end`, `fail` or `refuse`. If `is_doubtful`, it must read no more of the answer
    and call `fail`.
    """

    def __init__(
        self,
        container: Container,
        position: ApiPosition | None,
        tally: Tally,
        *,
        max_line: int,
        oldest: int,
        backoff: Backoff,
        opened: OpenLines | None = None,
    ) -> None:
        self.container = container
        self.due = inf
        """When the next request is due. Infinite until `observe` tells of news."""
        self.finished = False
        """Whether nothing comes any more: the pod is gone."""
        self.lag = 0
        """Not known: the API does not tell the size of a log."""
        self.is_docker = False
        self.newest = position.newest if position else 0
        """The latest time of a line that was given out."""
        self._tally = tally
        self._max_line = max_line
        self._oldest = 0 if position else oldest
        self._backoff = backoff
        self._given = self._acknowledged = 0
        self._saved = position
        self._resume = position  # where the next request goes on
        self._was_known = position is not None
        self._latest = -1
        self._is_ended = self._is_deleted = False
        self._is_clean = False  # whether the last answer came to its end
        self._doubted: tuple[int, int] | None = None  # instance and latest of a doubtful answer
        # of the answer that is read now:
        self._request: ApiRequest | None = None
        self._opened = opened or OpenLines(max_line)
        self._text = TextReader(max_line, self._opened)
        self._window = Window(0)
        self._chain = (0, 0)
        self._guard: int | None = None
        self._gap: str | None = None
        self._is_headed = False
        self.is_doubtful = False
        """Whether the answer is not the log that was expected."""

    def __repr__(self) -> str:
        return f"<ApiReader {self.container.pod}/{self.container.name} at {self._resume}>"

    @property
    def position(self) -> ApiPosition | None:
        """The position of the acknowledged lines. None if nothing is known yet."""
        return self._saved if self._acknowledged < self._given else self._here()

    @property
    def is_over(self) -> bool:
        """Whether the instance that is read now has ended, by the pod's status."""
        here = self._resume
        if here is None:
            return False
        return self._is_deleted or here.instance < self._latest or self._is_ended

    @property
    def is_read(self) -> bool:
        """Whether the last instance was read to its end."""
        here = self._resume
        return here is not None and here.ended and here.instance >= self._latest

    @property
    def is_behind(self) -> bool:
        """Whether bytes are known that were not read. The API does not tell of any."""
        return False

    @property
    def follows(self) -> bool:
        """Whether the next request, or the one under way, stays open."""
        if self._request is not None:
            return self._request.follow
        return self._target() == self._latest and not self._is_ended

    def observe(self, latest: int, now: float, *, is_ended: bool, is_deleted: bool = False) -> None:
        """Take the container's status: its newest instance, and whether that has ended."""
        is_news = (latest, is_ended, is_deleted) != (
            self._latest, self._is_ended, self._is_deleted,
        )  # fmt: skip
        if latest < self._latest or not is_news:
            return
        is_first = self._latest < 0
        self._latest, self._is_ended, self._is_deleted = latest, is_ended, is_deleted
        if is_deleted and self._request is None:
            self._finish()
        elif is_first:
            self.due = now
        else:
            self.due = min(self.due, now + SOON)

    def acknowledge(self, mark: Mark) -> None:
        """Move the position behind a line. A mark older than the last one changes nothing."""
        if isinstance(mark, ApiMark) and mark.number > self._acknowledged:
            self._acknowledged = mark.number
            self._saved = mark.position
            if mark.number == self._given:
                self._saved = self._here()

    def request(self, now: float) -> ApiRequest | None:
        """Return the next request, or None if there is none before `due`, or before news."""
        if self.finished or self._request is not None or now < self.due:
            return None
        target = self._target()
        if target is None:
            self.due = inf
            return None
        here = self._begun(target)
        self._is_clean = False
        self._text = TextReader(self._max_line, self._opened)
        self._window = Window(here.since)
        self._chain, self._is_headed, self.is_doubtful = (0, 0), False, False
        self._guard = self._gap = None
        if here.behind:
            self._tally.lost["clock"] += 1
        if not here.lines and here.newest:
            self._guard, self._gap = here.newest, "clock"
        elif self._doubted == (target, self._latest):
            self._guard, self._gap = here.newest, "rotated"
            self._chain = here.lines, here.crc
        is_current = target == self._latest
        self._request = ApiRequest(
            previous=not is_current,
            follow=is_current and not self._is_ended,
            since=here.since or None,
        )
        return self._request

    def feed(self, data: bytes) -> Read:
        """Read bytes of the answer, and return the lines that are new."""
        given: Read = []
        if self._acknowledged == self._given:
            self._saved = self._here()
        for line in self._text.feed(data):
            if self.is_doubtful:
                break
            self._one(line, given)
        return given

    def end(self, now: float) -> Read:
        """Say that the answer has ended as it should, and return its last lines."""
        request, given = self._request, Read()
        was_doubtful = self.is_doubtful
        if request is None or was_doubtful:
            self.fail(now)
            return given
        if request.follow:
            self._close(now)
            self._is_clean = True
            self.due = now if self.is_over else now + self._backoff.delay(now)
        else:
            if rest := self._text.finish():
                self._one(rest, given, is_unfinished=True)
            if self.is_doubtful or self._is_repeating:
                self.is_doubtful = True
                self._close(now)
            else:
                self._end_instance(now)
        if self._is_deleted:
            self._finish()
        return given

    def fail(self, now: float, *, at_least: float = 0.0, is_quiet: bool = False) -> None:
        """Say that the answer was cut short, or never began. `is_quiet` is no failure."""
        is_doubtful = self.is_doubtful
        self._close(now)
        if not is_doubtful:
            delay = at_least if is_quiet else self._backoff.delay(now, at_least=at_least)
            self.due = now + delay
        if self._is_deleted:
            self._finish()

    def refuse(self, now: float) -> None:
        """Say that the instance which was asked for is not there (status 400 or 404)."""
        request = self._request
        if request is None or not request.previous:
            self.fail(now)
            return
        if self._was_known:
            self._tally.lost["deleted"] += 1
        self._gap = None
        self._end_instance(now)

    @property
    def _is_repeating(self) -> bool:
        """Whether lines come that were read before."""
        return self._resume is not None and self._chain[0] < self._resume.lines

    def _target(self) -> int | None:
        """The instance to read next, or None if there is none."""
        here, latest = self._resume, self._latest
        if latest < 0 or self._is_deleted:
            return None
        if here is None:
            return max(0, latest - 1)
        if here.instance > latest or (here.instance == latest and here.ended):
            return None
        if here.instance == latest or (here.instance == latest - 1 and not here.ended):
            return here.instance
        return latest if here.instance == latest - 1 else latest - 1

    def _begun(self, target: int) -> ApiPosition:
        """Where the target is read from. Instances that nobody can read any more are counted."""
        here = self._resume
        if here is None:
            here = ApiPosition(target, since=max(0, self._oldest // 1_000_000_000))
        elif here.instance < target:
            missing = target - here.instance - (1 if here.ended else 0)
            if missing:
                self._tally.lost["deleted"] += missing
            here = ApiPosition(target, newest=self.newest)
            self._doubted = None
        else:
            return here
        self._resume = here
        self._settle()
        return here

    def _settle(self) -> None:
        """Move the position to the place that was reached, if no line waits for it."""
        if self._acknowledged == self._given:
            self._saved = self._resume

    def _one(self, line: TimedLine, given: Read, *, is_unfinished: bool = False) -> None:
        here, time = self._resume, line.time
        if here is None:
            return
        if time is None:
            # It is the rest of a line that began before `since`: it was read before.
            was_read = here.lines and (self._is_repeating or not self._is_headed)
            if not was_read:
                self._tally.lost["not_cri"] += 1
            return
        self._is_headed = True
        if self._is_repeating:
            if time > here.newest:
                self.is_doubtful = True
                return
            self._window.add(line)
            self._chain = add_line(self._chain, line.crc)
            if self._chain[0] == here.lines and self._chain[1] != here.crc:
                self.is_doubtful = True
            return
        self._window.add(line)
        if self._guard is not None and time <= self._guard:
            if self._gap == "clock":
                self._count_gap()
            return
        self._guard = None  # lines that were taken stand before all others
        if time < self._oldest:
            self._tally.lost["too_old"] += 1
            return
        self._give(line, time, given, is_unfinished=is_unfinished)

    def _give(self, line: TimedLine, time: int, given: Read, *, is_unfinished: bool) -> None:
        if self._gap == "rotated":
            self._count_gap()
        self._doubted, self._was_known = None, True
        self._given += 1
        self.newest = max(self.newest, time)
        tally = self._tally
        tally.lines += 1
        tally.bytes += len(line.text)
        tally.cut += line.is_cut
        tally.unfinished += is_unfinished
        here = self._snapshot()
        given.append(
            (
                Line(self.container, here.instance, "", time, line.text),
                ApiMark(self._given, here),
            )
        )

    def _snapshot(self) -> ApiPosition:
        """The position behind the last line of the window."""
        window, here = self._window, self._resume
        instance = here.instance if here else 0
        return ApiPosition(
            instance, window.since, window.lines, window.crc, self.newest, behind=window.behind
        )

    def _here(self) -> ApiPosition | None:
        """The position behind all lines that were given out."""
        is_new = self._window.lines and not self._is_repeating and not self.is_doubtful
        if self._request is None or not is_new or self._guard is not None:
            return self._resume
        return self._snapshot()

    def _close(self, now: float) -> None:
        """Keep the place that the answer has reached."""
        self._resume = self._here()
        self._text.close()
        if self.is_doubtful and self._resume is not None:
            self._doubted = self._resume.instance, self._latest
            self.due = now + SETTLE
        self._request, self.is_doubtful = None, False

    def _end_instance(self, now: float) -> None:
        """The instance was read to its end."""
        if self._gap == "rotated":
            self._count_gap()
        self._close(now)
        if self._resume is not None:
            self._resume = msgspec.structs.replace(self._resume, ended=True)
        self._settle()
        self._doubted = None
        self._was_known = self._is_clean = True
        self.due = now

    def _count_gap(self) -> None:
        if self._gap is not None:
            self._tally.lost[self._gap] += 1
        self._gap = None

    def _finish(self) -> None:
        """The pod is gone. What was not read of it is lost."""
        here = self._resume
        is_read = here is not None and here.instance == self._latest
        if not (is_read and (self._is_clean or (here is not None and here.ended))):
            self._tally.lost["deleted"] += 1
        self.finished, self.due = True, inf
