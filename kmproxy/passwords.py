"""Whether a name and a password are those of a user, by bcrypt, off the event loop.

Knows hashes, what has been found out already, and how much may be under way.
Must not know requests. No password is kept: what was found out is under a keyed
hash of it, with a key of this process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

MAX_REMEMBERED = 256
"""Accepted credentials, and refused ones, that are remembered: of each as many."""

MAX_UNDER_WAY = 16
"""Comparisons that may be under way or wait at once; each takes about 0.1 s of a processor."""

LONGEST = 72
"""Bytes of a password that bcrypt looks at."""

_NOBODY = "$2b$10$KVHQR1MS/rRfaBjQ0fQeGu6K3CfH/emJCFan0JUd0mQ.hVkm7ef9e"
"""Compared with the password of who is no user, so that it takes as long."""


class BusyError(Exception):
    """Too many comparisons are under way; the caller may come again."""


class Passwords:
    """Compares passwords in a thread of its own; its owner closes it.

    `key` is 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._pool = ThreadPoolExecutor(1, "passwords")
        self._known: dict[bool, OrderedDict[bytes, None]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}

    def __repr__(self) -> str:
        accepted, refused = len(self._known[True]), len(self._known[False])
        return f"<Passwords {accepted} accepted, {refused} refused, {len(self._under_way)} to come>"

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def verify(self, users: Mapping[str, str], name: str, password: bytes) -> bool:
        """Whether `password` is that of the user `name`.

        `users` has a bcrypt hash for each name; an answer holds for just that
        hash. Raises BusyError.
        """
        stored = users.get(name)
        digest = self._digest(name, stored, password)
        for answer, known in self._known.items():
            if digest in known:
                known.move_to_end(digest)
                return answer
        if (task := self._under_way.get(digest)) is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                raise BusyError
            task = asyncio.create_task(self._compare(digest, stored, password))
            self._under_way[digest] = task
            task.add_done_callback(lambda _: self._under_way.pop(digest, None))
        # It goes on without the one who asked first: others may wait for it.
        return await asyncio.shield(task)

    async def _compare(self, digest: bytes, stored: str | None, password: bytes) -> bool:
        loop = asyncio.get_running_loop()
        hashed = (stored or _NOBODY).encode()
        equal = await loop.run_in_executor(self._pool, _equal, password, hashed)
        answer = equal and stored is not None
        known = self._known[answer]
        known[digest] = None
        if len(known) > MAX_REMEMBERED:
            known.popitem(last=False)
        return answer

    def _digest(self, name: str, stored: str | None, password: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (name.encode("utf-8", "surrogateescape"), (stored or "").encode(), password):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def _equal(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:LONGEST], hashed)
    except ValueError:  # a hash that only looks like one
        return False
