"""The positions on disk.

Knows when the file is read and written, and whom it must belong to. Must not know the meaning of a
position.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kmproxy.errors import OwnFileError, PositionsError
from kmproxy.logs.positions import MAX_BYTES, PositionBook
from kmproxy.own_file import aside, clear_leftovers, read_own, replace_own

INTERVAL = 1.0
"""Seconds between two writes that nobody waits for."""

RETRY = 10.0
"""Seconds between a failed write and the next attempt."""

_LEFTOVER = 600.0

_log = logging.getLogger(__package__)


class PositionFile:
    """Keeps a PositionBook in a file of mode 0600, which is replaced as a whole.

    `run` writes it at most once in `INTERVAL` seconds. `flush` writes at once, for a caller that
    must not go on before the positions are on disk: callers at the same time share a write. `clock`
    gives seconds since 1970. `collect` is called before each write, and puts the current positions
    into the book.

    A failed write causes a log line and is counted. The file then keeps the older positions, so a
    restart repeats lines but loses none.
    """

    def __init__(
        self,
        path: str,
        book: PositionBook,
        *,
        clock: Callable[[], float],
        collect: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = Path(path)
        self._book = book
        self.failures: Counter[str] = Counter()
        """Failures by operation, `read` or `write`."""
        self._clock = clock
        self._collect = collect
        self._writing: asyncio.Lock = asyncio.Lock()
        self._wanted = 0  # calls of `flush`; the write that began last serves those before it
        self._served = 0
        self._unwritten = False
        self._failing = False
        self._reason = ""

    def __repr__(self) -> str:
        return f"<PositionFile {self._path}>"

    def load(self) -> None:
        """Read the positions; an absent file has none. Raises PositionsError with the file's name.

        A file that is damaged, or that others can write, is refused: it could skip lines.
        """
        clear_leftovers(self._path, self._clock() - _LEFTOVER)
        try:
            self._book.restore(read_own(self._path, MAX_BYTES))
        except FileNotFoundError:
            return
        except (OSError, OwnFileError, PositionsError) as error:
            self.failures["read"] += 1
            reason = getattr(error, "strerror", None) or str(error)
            raise PositionsError(
                f"the positions file {self._path} is refused: {reason}; remove it to begin anew"
            ) from error

    async def prove(self) -> None:
        """Write the positions once. Raises PositionsError, with the file's name, if that fails."""
        self._book.changed = True
        self._failing = True  # so that the error stands alone, without a log line
        if not await self.flush():
            reason = f"cannot be written: {self._reason}; give a file on a writable volume"
            raise PositionsError(f"{self._path} {reason}")

    async def flush(self) -> bool:
        """Write the positions of this moment, and return whether they are on disk."""
        self._wanted += 1
        number = self._wanted
        async with self._writing:
            return number <= self._served or await self._write()

    async def run(self) -> None:
        """Write changed positions, until it is cancelled."""
        wait = INTERVAL
        while True:
            await asyncio.sleep(wait)
            wait = INTERVAL if await self.flush() else RETRY

    async def _write(self) -> bool:
        wanted = self._wanted
        self._collect()
        if not self._book.changed and not self._unwritten:
            self._served = wanted
            return True
        data = self._book.encode(self._clock())
        self._unwritten = True
        try:
            await aside(lambda: replace_own(self._path, [data]), "log-positions")
        except OSError as error:
            self.failures["write"] += 1
            self._reason = error.strerror or str(error)
            if not self._failing:
                _log.warning(
                    "the positions file %s cannot be written: %s; a restart repeats lines",
                    self._path,
                    self._reason,
                )
            self._failing = True
            return False
        self._served, self._unwritten, self._failing = wanted, False, False
        return True
