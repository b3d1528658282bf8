"""Whether a name and a password are those of a user, by bcrypt, off the event loop.

Knows hashes, what has been found out already, and whose turn it is. Must not know
requests. No password is kept: what was found out is under a keyed hash of it, with
a key of this process.

Every comparison costs the same, whatever the name: as much as the most expensive
hash of a user. What was found out is known at once, so a flood of wrong passwords
does not delay a user who was let in before.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import bcrypt

MAX_REMEMBERED = 256
"""Accepted credentials, and refused ones, that are remembered: of each as many."""

MAX_WAITING = 16
"""Comparisons that may wait at once; each takes about 0.1 s of a processor."""

MAX_PER_ADDRESS = 4
"""Those of one address that may wait at once."""

LONGEST = 72
"""Bytes of a password that bcrypt looks at."""

_NOBODY = "KVHQR1MS/rRfaBjQ0fQeGu6K3CfH/emJCFan0JUd0mQ.hVkm7ef9e"
_USUAL = 10  # the cost where there is no user


class BusyError(Exception):
    """Too many comparisons wait; the caller may come again."""


@dataclass(eq=False, slots=True)
class _Comparison:
    """One that waits or is under way, for all who ask for just that.

    It is dropped when none of them waits any more before its turn.
    """

    digest: bytes
    address: str
    password: bytes
    stored: str | None
    most: int
    answer: asyncio.Future[bool]
    askers: int = 0


class Passwords:
    """Compares passwords in a thread of its own; its owner closes it.

    Addresses take turns. With too many that wait the address with the most gives up
    its last for another that has fewer. `key` is 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._pool = ThreadPoolExecutor(1, "passwords")
        self._known: dict[bool, OrderedDict[bytes, None]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }
        self._under_way: dict[bytes, _Comparison] = {}
        self._queues: OrderedDict[str, deque[_Comparison]] = OrderedDict()  # the next is first
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        accepted, refused = len(self._known[True]), len(self._known[False])
        return f"<Passwords {accepted} accepted, {refused} refused, {len(self._under_way)} to come>"

    def close(self) -> None:
        """Begin nothing more; who waits is told to come again."""
        if self._running is not None:
            self._running.cancel()
        for comparison in self._under_way.values():
            _turn_away(comparison)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def verify(
        self, users: Mapping[str, str], name: str, password: bytes, *, address: str = ""
    ) -> bool:
        """Whether `password` is that of the user `name`.

        `users` has a bcrypt hash for each name; an answer holds for just that
        hash. `address` is where it is asked from. Raises BusyError.
        """
        stored = users.get(name)
        digest = self._digest(name, stored, password)
        for answer, known in self._known.items():
            if digest in known:
                known.move_to_end(digest)
                return answer
        comparison = self._under_way.get(digest)
        if comparison is None:
            self._make_room(address)
            most = max(map(_cost, users.values()), default=_USUAL)
            future = asyncio.get_running_loop().create_future()
            comparison = _Comparison(digest, address, password, stored, most, future)
            self._under_way[digest] = comparison
            self._queues.setdefault(address, deque()).append(comparison)
            if self._running is None:
                self._running = asyncio.create_task(self._run())
        comparison.askers += 1
        try:
            # It goes on without the one who asked first: others may wait for it.
            return await asyncio.shield(comparison.answer)
        finally:
            comparison.askers -= 1
            if not comparison.askers and not comparison.answer.done():
                self._drop(comparison)

    def _make_room(self, address: str) -> None:
        """Let one more wait for an address. Raises BusyError if that is for others to do."""
        waiting = len(self._queues.get(address, ()))
        if waiting >= MAX_PER_ADDRESS:
            raise BusyError
        if sum(map(len, self._queues.values())) < MAX_WAITING:
            return
        most = max(self._queues.values(), key=len)
        if len(most) <= waiting + 1:
            raise BusyError
        last = most[-1]
        self._drop(last)
        _turn_away(last)

    def _drop(self, comparison: _Comparison) -> None:
        """Let a comparison not come to its turn; one that has begun goes on."""
        queue = self._queues.get(comparison.address)
        if queue is not None and comparison in queue:
            queue.remove(comparison)
            if not queue:
                del self._queues[comparison.address]
            del self._under_way[comparison.digest]

    async def _run(self) -> None:
        """Make the comparisons that wait, one after the other, an address at a time."""
        try:
            while self._queues:
                address, queue = self._queues.popitem(last=False)
                comparison = queue.popleft()
                if queue:
                    self._queues[address] = queue  # its next turn is after all others
                await self._compare(comparison)
        finally:
            self._running = None

    async def _compare(self, comparison: _Comparison) -> None:
        loop, stored = asyncio.get_running_loop(), comparison.stored
        try:
            equal = await loop.run_in_executor(
                self._pool, _equal, comparison.password, stored, comparison.most
            )
            known = self._known[equal]
            known[comparison.digest] = None
            if len(known) > MAX_REMEMBERED:
                known.popitem(last=False)
            if not comparison.answer.done():
                comparison.answer.set_result(equal)
        finally:
            del self._under_way[comparison.digest]
            _turn_away(comparison)

    def _digest(self, name: str, stored: str | None, password: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (name.encode("utf-8", "surrogateescape"), (stored or "").encode(), password):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def _turn_away(comparison: _Comparison) -> None:
    if not comparison.answer.done():
        comparison.answer.set_exception(BusyError())
        comparison.answer.exception()  # perhaps nobody waits for it any more


def _cost(hashed: str) -> int:
    """How expensive a hash is: comparing with it takes 2 to the power of this."""
    cost = hashed.split("$")[2:3]
    return int(cost[0]) if cost and cost[0].isdecimal() else _USUAL


def _equal(password: bytes, stored: str | None, most: int) -> bool:
    """Whether a password is that of a hash, at the expense of a hash of cost `most`.

    2^c for a hash of cost c, and then 2^c + 2^(c+1) + ... + 2^(most-1), are together
    2^most: as much as a name that nobody has is compared for.
    """
    password = password[:LONGEST]
    if stored is None:
        _compared(password, _nobody(most))
        return False
    equal = _compared(password, stored)
    for cost in range(_cost(stored), most):
        _compared(password, _nobody(cost))
    return equal


def _nobody(cost: int) -> str:
    return f"$2b${cost:02d}${_NOBODY}"


def _compared(password: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password, hashed.encode())
    except ValueError:  # a hash that only looks like one
        return False
