"""Ends the processes of a measurement, if the measuring process is killed before it can.

`python -m kmproxy.bench.guard FOLDER`: the measuring process holds the other end of the guard's
standard input. It writes the id of each process that it starts, and `DONE` at the end. If the input
ends without `DONE`, the measuring process was killed: the guard kills the other processes and
removes the folder. Must not know what is measured.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

DONE: Final = "done"

REMOVAL: Final = 5.0
"""Seconds for which the removal of the folder is tried, while other processes may write to it."""


@contextmanager
def guarded(folder: Path) -> Iterator[Callable[[int], None]]:
    """Guard the block. Yields a function that takes the id of each process that was started.

    At the end of the block, also by an error, the guard does nothing: the block itself must stop
    the processes and remove the folder.
    """
    guard = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "kmproxy.bench.guard", str(folder)],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a signal to the terminal's processes does not end the guard
    )

    def tell(text: str) -> None:
        if guard.stdin is not None:
            with suppress(OSError):  # the guard was killed
                guard.stdin.write(f"{text}\n")
                guard.stdin.flush()

    try:
        yield lambda pid: tell(str(pid))
    finally:
        tell(DONE)
        guard.communicate()


def guard(folder: Path, messages: IO[str]) -> None:
    """Read messages to their end. Without `DONE`, kill the processes and remove the folder."""
    pids = []
    for line in messages:
        if line.strip() == DONE:
            return
        pids.append(int(line))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + REMOVAL
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


if __name__ == "__main__":
    guard(Path(sys.argv[1]), sys.stdin)
