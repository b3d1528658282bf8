"""The supervisor: a process that runs a daemon until standard input ends, then removes its folder.

`python -m kmproxy.supervisor FOLDER COMMAND...`: the process that starts the supervisor holds the
other end of its standard input. When that process ends, even by SIGKILL, that end is closed. So
neither the daemon nor the folder stays behind. Must not know which daemon it runs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

from kmproxy.daemon_process import peak_memory

STOP_TIMEOUT = 20.0
"""Seconds from SIGTERM to SIGKILL, for a child that does not end."""


def supervise(folder: str, command: Sequence[str]) -> int:
    """Runs a daemon until it ends or standard input ends, then removes the folder.

    Returns the daemon's exit status, or 128 plus the number of the signal that ended it. If
    standard input ended first, prints the daemon's peak memory.
    """
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the caller's command
    peaks: list[int] = []
    try:
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        Thread(target=_end_with_input, args=(child, peaks), daemon=True).start()
        status = child.wait()
    finally:
        child.kill()
        shutil.rmtree(folder, ignore_errors=True)
    for peak in peaks:
        with suppress(OSError):  # the terminal may be closed
            print(f"peak memory of the daemon: {peak / (1 << 20):.1f} MiB RSS", flush=True)
    return status if status >= 0 else 128 - status


def _end_with_input(child: subprocess.Popen[bytes], peaks: list[int]) -> None:
    while os.read(0, 4096):
        pass
    if (peak := peak_memory(child.pid)) is not None:
        peaks.append(peak)
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1], sys.argv[2:]))
