"""Shows on a terminal how far a command has come, if it takes long.

Knows terminals and the clock. Must not know what a command does.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

AFTER = 2.0
"""Seconds without progress shown: most runs are over by then."""

_INTERVAL = 0.5  # seconds from one line to the next

_ERASE = "\r\x1b[K"


class Progress:
    """Counts bytes, and writes them to a terminal, one line over the other.

    `total` is the size of the input in bytes, if it is known. Times are seconds of `clock`.
    """

    def __init__(
        self, terminal: TextIO, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._total = total
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + AFTER
        self._shown = False
        self._done = 0

    def add(self, count: int) -> None:
        """Counts bytes. Shows the line if it is time."""
        self._done += count
        if (now := self._clock()) < self._next:
            return
        self._next = now + _INTERVAL
        rate = self._done / max(now - self._begun, 1e-9)
        of = ""
        if self._total:
            of = f" of {_size(self._total)} ({min(self._done / self._total, 1):.0%})"
        self._write(f"{_ERASE}kmproxy: {_size(self._done)}{of} read, {_size(rate)}/s")
        self._shown = True

    def end(self) -> None:
        """Erases the line."""
        if self._shown:
            self._write(_ERASE)
            self._shown = False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal has gone: the command goes on
            self._terminal.write(text)
            self._terminal.flush()


def _size(count: float) -> str:
    """A number of bytes in MB, or in GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def shown_progress(
    source: TextIO, sink: TextIO, terminal: TextIO | None
) -> Iterator[Callable[[int], None] | None]:
    """Yields a function that takes the number of bytes read, or None if progress is not shown.

    It is shown if `terminal` is one, and neither the input nor the output is.
    """
    if terminal is None or not terminal.isatty() or source.isatty() or sink.isatty():
        yield None
        return
    progress = Progress(terminal, _total(source))
    try:
        yield progress.add
    finally:
        progress.end()


def _total(source: TextIO) -> int | None:
    """The bytes of a file from its position on. None if the source is no file."""
    try:
        about = os.fstat(source.fileno())
        if not stat.S_ISREG(about.st_mode):
            return None
        return max(about.st_size - os.lseek(source.fileno(), 0, os.SEEK_CUR), 0)
    except (OSError, ValueError):
        return None
