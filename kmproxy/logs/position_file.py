"""Keeps the positions on disk: read once at the start, written after lines were acknowledged.

Knows when the file is written, and what happens if it cannot be used. Must not know its format.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from kmproxy.errors import ConfigError, OwnFileError, PositionsError
from kmproxy.logs.positions import MAX_BYTES, PositionBook
from kmproxy.own_file import aside, clear_leftovers, read_own, replace_own

INTERVAL: Final = 1.0
"""Seconds between two writes if no push waits for one."""

RETRY: Final = 1.0
"""Seconds after a write that failed."""

_log = logging.getLogger(__package__)


class PositionMetrics:
    """Counts failures of the file of positions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.errors = Counter(
            "kmproxy_log_positions_errors",
            "Failures to read or write the file of positions; while it cannot be written, nothing "
            "more is sent.",
            ["operation"],
            registry=registry,
        )
        for operation in ("read", "write"):
            self.errors.labels(operation)


@dataclass(slots=True, eq=False)
class PositionFile:
    """The file of a `PositionBook`. `collect` brings the book up to date before each write.

    A write replaces the whole file. While it goes on, further changes wait for the next one.
    """

    path: Path
    book: PositionBook
    metrics: PositionMetrics
    _: KW_ONLY
    wall: Callable[[], float]
    collect: Callable[[], None] = lambda: None
    _lock: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _asked: int = field(init=False, default=0)
    _written: int = field(init=False, default=0)
    _failing: bool = field(init=False, default=False)

    def __repr__(self) -> str:
        return f"<PositionFile {self.path}, {self.book!r}>"

    async def load(self, *, damaged: str) -> None:
        """Read the positions, and prove that they can be written.

        A file that is damaged or not of our own user is refused with a ConfigError, or with
        `damaged` of `begin` left out with a log line. Raises ConfigError.
        """
        where = f"--positions {self.path}"
        try:
            data = await aside(lambda: read_own(self.path, MAX_BYTES), "positions")
            self.book.restore(data)
        except FileNotFoundError:
            pass
        except (OSError, OwnFileError, PositionsError) as error:
            self.metrics.errors.labels("read").inc()
            reason = getattr(error, "strerror", None) or str(error)
            if damaged != "begin":
                advice = "remove it, or give --positions-damaged=begin, which sends lines again"
                raise ConfigError([f"{where} is not used: {reason}: {advice}"]) from error
            _log.warning("%s is not used, and reading begins anew: %s", where, reason)
        clear_leftovers(self.path, time.time() - 60)
        try:
            await self._write()
        except OSError as error:
            advice = "give the path of a writable volume"
            raise ConfigError([f"{where} cannot be written: {error.strerror}: {advice}"]) from error

    async def run(self) -> None:
        """Write what has changed, once in `INTERVAL`."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.collect()
            if self.book.changed:
                with suppress(OSError):
                    await self._saved_once()

    async def saved(self) -> None:
        """Return when all that was acknowledged before this call is on disk.

        Tries again for ever. All who wait share a write.
        """
        while True:
            try:
                await self._saved_once()
            except OSError:
                await asyncio.sleep(RETRY)
            else:
                return

    async def _saved_once(self) -> None:
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._written >= mine:
                return
            now = self._asked
            try:
                await self._write()
            except OSError as error:
                self.metrics.errors.labels("write").inc()
                if not self._failing:
                    reason = error.strerror or str(error)
                    _log.error(
                        "--positions %s cannot be written: %s; nothing more is sent until it can",
                        self.path,
                        reason,
                    )
                self._failing = True
                self.book.changed = True
                raise
            self._failing = False
            self._written = now

    async def _write(self) -> None:
        self.collect()
        data = self.book.encode(self.wall())
        await aside(lambda: replace_own(self.path, [data]), "positions")
