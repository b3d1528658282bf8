"""Reads one container's log from the kubelet's files: each line once, over rotations and restarts.

Knows the order of the files, and the evidence that a file is the one that was read before. Must not
know sockets, clocks, labels or pushes. Times are seconds of the caller's clock.

The kubelet renames a file before the runtime opens the next one, and the runtime may write to the
renamed file until then and a little after. So a name does not tell which file it is.

Invariants:
- Bytes are taken only from a file that has the evidence before them (`Point.back`, `Point.crc`).
  Bytes at the beginning of a file have none. They are held until a listing, made after they were
  read, shows that no file was renamed before.
- A renamed file is finished when its end was seen `SETTLE` seconds after its successor was. The
  last file of an instance is finished when its end was seen `SETTLE` seconds after the instance's.
- If the last file of an instance is deleted before that, one gap is counted, unless its end was
  seen after the instance's: nothing was left to read then. The gap is `unseen` if all that was
  there at the last look had been read, else `deleted`.
- A pod that is gone may still have a running container, if no status has shown its end. Its file is
  finished when nothing came for `LINGER` seconds. The folder tells whether an instance follows.
- If a file is not found in two listings, one gap is counted, and reading goes on with the oldest
  file that is left.
- `position` moves only by `acknowledge`, and over bytes without lines.
- Memory: the bytes of one answer, and the bounds of `CriReader` and `PackedFile`.
"""

from __future__ import annotations

from math import inf

from kmproxy.logs.cursor import Cursor
from kmproxy.logs.exchange import Request, Response
from kmproxy.logs.listing import Listing
from kmproxy.logs.pace import ENDING, PATIENCE, SETTLE
from kmproxy.logs.positions import Point
from kmproxy.logs.progress import Read
from kmproxy.logs.unpacking import PackedFile, PackedFileError

PACKED = 32 << 10
"""Bytes of a compressed file that are asked for at once, as they stay until they are unpacked."""


class LogReader(Cursor):
    """Reads one container's log.

    The caller calls `observe` first, and again after each look at the pod. It sends each `request`
    and hands its answer to `respond`, or calls `retry`, one request at a time. While `has_backlog`
    it calls `resume`. `due` says when the next request is worth sending.
    """

    def observe(
        self, latest: int, now: float,
        *, is_ended: bool, is_deleted: bool = False, is_final: bool = False,
    ) -> None:  # fmt: skip
        """Tell the number of the last instance, whether it terminated, and whether the pod is gone.

        `is_deleted` is for a pod that is no longer listed, so no further instance comes. `is_final`
        says that none comes although the pod is listed.
        """
        if self._restarts.observe(
            latest, now, is_ended=is_ended, is_deleted=is_deleted, is_final=is_final
        ):
            self.due = min(self.due, now)
        if self.is_read and not self.finished:
            self._next_instance(now)

    def request(self, now: float, room: int) -> Request | None:
        """Return the request for at most `room` new bytes (and `MAX_BACK` more), or None."""
        if self.finished or self.is_read or self.has_backlog or room <= 0 or now < self.due:
            return None
        self._asked = now
        if self._is_listing:
            return Request(self._folder)
        first, start = self._point.offset - self._point.back, self._point.offset
        if self._file and self._file.is_packed:
            self._packed = self._packed or PackedFile(self._point)
            first = start = self._packed.offset
            room = min(room, PACKED)
        name = self._file.name(self._instance) if self._file else f"{self._instance}.log"
        return Request(self._folder + name, first, start + room - 1)

    def retry(self, now: float) -> None:
        """Say that the last request has no answer. The same one is asked again later."""
        if self._held:  # its bytes are asked for again, instead of being held for long
            self._held, self._is_listing = None, False
        self._rest(now, is_active=False)

    def respond(self, response: Response, now: float, room: int) -> Read:
        """Take the answer to the last request, and return the lines that end in it."""
        if self._is_listing:  # an index of a folder that is not there has no names
            return self._take_listing(Listing(response.body), now)
        if response.status == 404:
            return self._look_for(now, is_other=False)
        if self._packed:
            if response.status not in {200, 206} or response.first != self._packed.offset:
                return self._unpack(self._packed, now, room, is_end=True)
            self._packed.feed(response.body)
            self.lag = max((response.size or 0) - self._packed.offset, 0)
            return self._unpack(self._packed, now, room, is_end=not response.body)
        data = response.behind(self._point)
        if data is None:
            return self._look_for(now, is_other=True)
        if not self._point.offset and not self._file:
            self._held = response, self._asked
            self._is_listing, self.due = True, now
            return []
        return self._take(response, data, now)

    def resume(self, now: float, room: int) -> Read:
        """Return the lines of at most `room` further bytes that were fetched packed."""
        return self._unpack(self._packed, now, room) if self._packed else []

    def _take(self, response: Response, data: bytes, now: float) -> Read:
        """Take bytes behind the evidence, of a file that has it."""
        self._is_found, self._is_other, self._untried, self._doubts = True, False, [], 0
        new = data[self._point.back :]
        lines = self._progress.feed(new, self._instance, self._cri)
        self._point = self._cri.point
        self.lag = max((response.size or 0) - self._point.offset, 0)
        has_more = bool(new) and bool(self.lag or response.size is None)
        is_behind = bool(self.lag) or has_more or self._successor is not None
        is_up = not (self._file or is_behind)
        self._looks.take(self._asked, is_new=bool(new), is_up=is_up, is_behind=is_behind)
        if has_more:
            self.due = now
            return lines
        limit = self._looks.settled(self._instance)
        if self._file and self._successor is not None:
            limit = self._successor + SETTLE
        if limit is not None and self._asked >= limit and not self.lag:
            return lines + (self._end_file(now) if self._file else self._end_instance(now))
        self._rest(now, is_active=bool(new))
        if limit is not None:
            self.due = min(self.due, limit)
        elif self._file:
            self._is_listing = True  # has it a successor?
        return lines

    def _unpack(self, packed: PackedFile, now: float, room: int, *, is_end: bool = False) -> Read:
        """Take at most `room` bytes of a packed file. `is_end`: it has no further bytes."""
        self.due = now
        try:
            data = packed.unpack(room)
        except PackedFileError:
            data, is_end = b"", True
        if packed.is_other:
            return self._look_for(now, is_other=True)
        if data:
            self._is_found, self._doubts, self._untried = True, 0, []
            lines = self._progress.feed(data, self._instance, self._cri)
            return lines + (self._end_file(now) if packed.is_whole else [])
        if packed.is_whole:
            return self._end_file(now)
        if is_end:
            self._progress.lose("damaged")
            return self._end_open() + self._end_file(now)
        return []

    def _end_file(self, now: float) -> Read:
        """Go on with the file after a rotated one."""
        lines = self._progress.give(self._cri.end_file(), self._instance, self._cri.after)
        stamp = self._file.stamp if self._file else ""
        later = [each for each in self._rotated if each.stamp > stamp]
        self._go_to(Point(stamp))
        if later:
            self._file, self._is_found = later[0], True
        self._successor, self.due = self._successor if len(later) > 1 else None, now
        return lines

    def _end_instance(self, now: float) -> Read:
        """Go on with the next instance."""
        lines = self._end_open()
        self.is_read, self.due = True, inf
        self._next_instance(now)
        return lines

    def _next_instance(self, now: float) -> None:
        if self._instance < self._restarts.latest:
            self._begin_instance(self._instance + 1, now)
        elif self._restarts.is_deleted:
            self.is_read, self.due = False, now
            self._is_checking = self._is_listing = True
        elif self._ended() is None:  # it has not ended after all
            self.is_read, self.due = False, now

    def _check_end(self, listing: Listing, now: float) -> None:
        """Go on with an instance that began before the pod was deleted, and that was not shown."""
        self._is_checking, self.is_read, self.due = False, True, inf
        if self._instance < self._restarts.latest or not self._restarts.is_deleted:
            self._next_instance(now)
        elif not listing.instances and not self._restarts.is_final:
            self._progress.lose("unseen")
        self.finished = self.is_read and self._restarts.is_deleted

    def _begin_instance(self, instance: int, now: float) -> None:
        self._instance, self._is_first, self.is_read = instance, False, False
        self._progress.skip()
        self._go_to(Point())
        self._rotated, self._successor, self.due = [], None, now

    def _look_for(self, now: float, *, is_other: bool) -> Read:
        """The file that was asked for is not the one that is read. Find out where that is."""
        self._point, self._packed = self._cri.point, None
        self.due, self._is_listing = now if self._point.offset else now + ENDING, True
        self._looks.is_behind |= is_other
        if not self._file:
            self._is_other = is_other
        elif self._is_found:
            self._was_rotated = self._is_other = True
        elif self._untried and is_other:
            self._file, self._is_listing = self._untried.pop(0), False
            return []
        else:
            self._doubts, self.due = self._doubts + 1, now + ENDING
            if self._doubts > (1 if is_other else PATIENCE):
                return self._miss("rotated", now, is_readable=is_other)
        self._file, self._is_found = None, False
        return []

    def _miss(self, reason: str, now: float, *, is_readable: bool = True) -> Read:
        """Count a gap, and go on with the oldest file that is left, or the one after it."""
        self._progress.lose(reason)
        self._is_listing, self.due = False, now
        if saved := self._progress.skip():  # the start of an open line is gone
            self._cri.end()
            self._go_to(saved.done)
            self._cri.restore(saved.skipping)
            return []
        lines, left = self._end_open(), self._rotated if is_readable else self._rotated[1:]
        self._go_to(Point(self._point.after if is_readable else self._rotated[0].stamp))
        if left:
            self._file, self._is_found = left[0], True
        return lines

    def _take_listing(self, listing: Listing, now: float) -> Read:
        """Decide which file is next, by the names in the container's folder."""
        self._is_listing, self.due = False, now
        if self._restarts.is_deleted:
            self._restarts.extend(max(listing.instances, default=-1), now)
        if self._is_checking:
            self._check_end(listing, now)
            return []
        if self._instance < 0:
            self._instance = min([*listing.instances, self._restarts.latest])
            return []
        after, has_later = self._point.after, max(listing.instances, default=-1) > self._instance
        self._rotated = [each for each in listing.rotated(self._instance) if each.stamp > after]
        if not self._rotated:
            return self._take_current(listing, now)
        self._held = None
        if self._file and self._is_found:
            same = [each for each in self._rotated if each.stamp == self._file.stamp]
            if same:
                self._file = same[0]
                if has_later or listing.has_current(self._instance) or self._rotated[-1:] != same:
                    self._successor = now if self._successor is None else self._successor
                    self._looks.is_behind = True
                return []
            self._was_rotated = self._is_other = True
        return self._take_rotated(listing, now, has_later=has_later)

    def _take_rotated(self, listing: Listing, now: float, *, has_later: bool) -> Read:
        """Go on with the oldest rotated file that is not read."""
        lines, after = Read(), self._point.after
        if not self._point.offset and not self._is_counted:
            full = not after and not self._is_first and len(self._rotated) >= self._kept
            if full or (after and not listing.has_rotated(self._instance, after)):
                if self._progress.is_repeating:
                    return self._miss("rotated", now)
                self._progress.lose("rotated")  # a file before the oldest one that is left
                lines, self._is_counted = self._end_open(), True
        self._file, *self._untried = self._rotated
        self._looks.is_behind |= bool(self._untried)
        self._is_found = False
        self._successor = now if self._is_other or self._untried or has_later else None
        return lines

    def _take_current(self, listing: Listing, now: float) -> Read:
        """Go on without any rotated file: with the file that is written to, if it is there."""
        if self._held:
            (response, self._asked), self._held = self._held, None
            return self._take(response, response.behind(self._point) or b"", now)
        self._file, self._is_found = None, False
        later = [
            each for each in listing.instances if self._instance < each <= self._restarts.latest
        ]
        has_current = listing.has_current(self._instance)
        ended = self._ended()
        waits = ended is None or self._asked < ended + SETTLE
        if waits and not (self._is_other and has_current) and not self._is_anew(listing):
            self._rest(now, is_active=False)
            return []
        self._doubts += 1
        self.due = now + ENDING
        if self._doubts < 2:
            return []
        if has_current:
            return self._miss("rotated" if self._was_rotated else "truncated", now)
        return self._end_gone(listing, later, now)

    def _is_anew(self, listing: Listing) -> bool:
        """Whether the instances are counted from 0 again.

        A static pod that was taken away and put back has the same UID, and a new folder.
        """
        newest = max(listing.instances, default=self._instance)
        return self._restarts.latest < self._instance and newest < self._instance

    def _end_gone(self, listing: Listing, later: list[int], now: float) -> Read:
        """End an instance whose files are gone, and go on with the first later one."""
        if self._is_anew(listing):
            later = listing.instances
        reason = self._looks.loss(self._instance)
        if not self._point.offset and listing.has_rotated(self._instance, self._point.after):
            reason = None  # it ended before its next file was made
        if later and later[0] > self._instance + 1:
            reason = "deleted"
        if reason is not None:
            self._progress.lose(reason)
        if later:
            lines = self._end_open()
            self._begin_instance(later[0], now)
            return lines
        if self._restarts.is_deleted and self._instance >= self._restarts.latest:
            self.finished, self.due = True, inf
            return self._end_open()
        return self._end_instance(now)
