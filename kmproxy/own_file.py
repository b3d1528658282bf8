"""Files that kmproxy keeps for itself. It reads them only if no other user can have written them.

Knows owners, modes and atomic replacement. Must not know the content of a file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO, TypeVar

from kmproxy.errors import OwnFileError

_NEW = ".new-"

_T = TypeVar("_T")


def open_own(path: Path, limit: int) -> BinaryIO:
    """Opens a file that kmproxy keeps, of at most `limit` bytes. The caller closes it.

    Raises OSError if the file does not exist or cannot be read. Raises OwnFileError if it is too
    long, or is not a regular file of kmproxy's own user that others cannot write. A symbolic link
    is never followed. A pipe is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OwnFileError(
                "the file is a symbolic link, which kmproxy does not follow"
            ) from error
        raise
    if problem := _problem(os.fstat(descriptor), limit):
        os.close(descriptor)
        raise OwnFileError(problem)
    return open(descriptor, "rb")  # noqa: PTH123 - a descriptor has no path


def read_own(path: Path, limit: int) -> bytes:
    """Returns the bytes of a file that kmproxy keeps. Raises the same errors as `open_own`."""
    with open_own(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # it has grown meanwhile
        raise OwnFileError(f"the file is over {limit} bytes")
    return data


def _problem(status: os.stat_result, limit: int) -> str | None:
    """Returns why the content of a file is not trusted, or None."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "the file is not a regular file"
    if status.st_uid != os.geteuid():
        return f"the file belongs to another user (uid {status.st_uid}, not {os.geteuid()})"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write the file (mode {mode:04o}): check fsGroup"
    return f"the file is over {limit} bytes" if status.st_size > limit else None


def replace_own(path: Path, pieces: Iterable[bytes]) -> None:
    """Replaces the old file by a whole new one of mode 0600. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}{_NEW}", dir=path.parent)
    new = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def clear_leftovers(path: Path, before: float) -> None:
    """Removes new files that killed writers left, if not changed since `before`.

    `before` is in seconds since 1970.
    """
    with suppress(OSError):
        for each in path.parent.iterdir():
            if each.name.startswith(path.name + _NEW) and each.lstat().st_mtime < before:
                each.unlink()


async def aside(work: Callable[[], _T], name: str) -> _T:
    """Runs `work` in a thread of its own, and returns or raises the same as `work`.

    The end of the process does not wait for this thread. It would wait for the thread of an
    executor. If the caller stops waiting, the thread runs on until its work is done.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(outcome)
