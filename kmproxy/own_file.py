"""Files that kmproxy keeps for itself: read only if nobody else can have written them.

Knows owners, modes and atomic replacement. Must not know what stands in a file.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

from kmproxy.errors import OwnFileError

_NEW = ".new-"

_T = TypeVar("_T")


def read_own(path: Path, limit: int) -> bytes:
    """The bytes of a file of ours. Raises OSError if there is none or it cannot be read.

    Raises OwnFileError unless it is a regular file of our own user, which others
    cannot write, of at most `limit` bytes. A symbolic link is never followed,
    and nothing is waited for but the disk.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise OwnFileError("it is a symbolic link") from error
        raise
    try:
        _check(os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OwnFileError(f"it is over {limit} bytes")
    return data


def _check(status: os.stat_result) -> None:
    """Raise OwnFileError if others may have written it."""
    if not stat.S_ISREG(status.st_mode):
        raise OwnFileError("it is not a regular file")
    if status.st_uid != os.geteuid():
        message = f"it belongs to user {status.st_uid}, and kmproxy is user {os.geteuid()}"
        raise OwnFileError(message)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise OwnFileError(f"others can write it: its mode is {mode:04o}, 0600 would do")


def replace_own(path: Path, data: bytes) -> None:
    """Put a whole new file of mode 0600 in the place of the old one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}{_NEW}", dir=path.parent)
    new = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def clear_leftovers(path: Path, before: float) -> None:
    """Remove the new files that killed writers left, not touched since `before` (of 1970)."""
    with suppress(OSError):
        for each in path.parent.iterdir():
            if each.name.startswith(path.name + _NEW) and each.lstat().st_mtime < before:
                each.unlink()


async def aside(work: Callable[[], _T], name: str) -> _T:
    """What `work` returns or raises, in a thread that the end of the process does not wait for.

    An executor's would be joined. Who no longer waits leaves it behind, until it is done.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(outcome)
