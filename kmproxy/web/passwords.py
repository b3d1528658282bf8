"""Compares the password of a user with a bcrypt hash, outside the event loop.

Knows hashes, earlier results, and the order of comparisons. Must not know requests.
No password is kept: a result is stored under a keyed hash of the password, with a
key of this process.

Each comparison costs the same for any name: as much as the most expensive hash of a
user. An earlier result is returned at once, so a flood of wrong passwords does not
delay a user who was accepted before.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import bcrypt

from kmproxy.bounded_cache import BoundedCache
from kmproxy.digests import digest
from kmproxy.shared import SharedCalls

MAX_REMEMBERED = 256
"""Accepted credentials that are remembered, and as many refused ones."""

MAX_WAITING = 16
"""Comparisons that may wait at once. Each takes about 0.1 s of a processor."""

MAX_PER_ADDRESS = 4
"""Comparisons of one address that may wait at once."""

LONGEST = 72
"""Bytes of a password that bcrypt uses."""

_NOBODY = "KVHQR1MS/rRfaBjQ0fQeGu6K3CfH/emJCFan0JUd0mQ.hVkm7ef9e"
_USUAL = 10  # the cost if there are no users


class BusyError(Exception):
    """Too many comparisons wait. The caller may try again."""


class _Comparison:
    """A comparison that waits or runs. All requests with the same credential share it."""

    def __init__(
        self, key: bytes, address: str, password: bytes, stored: str | None, most: int
    ) -> None:
        self.key = key
        self.address = address
        self.password = password
        self.stored = stored
        self.most = most
        self._answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def result(self) -> bool:
        """The answer, once the comparison has had its turn. Raises BusyError."""
        return await self._answer

    def settle(self, equal: bool) -> None:
        """Give the answer, unless the comparison was turned away."""
        if not self._answer.done():
            self._answer.set_result(equal)

    def turn_away(self) -> None:
        """Give a BusyError instead of an answer that is not there yet."""
        if not self._answer.done():
            self._answer.set_exception(BusyError())
            self._answer.exception()  # no warning if no request waits for it


class Passwords:
    """Compares passwords in its own thread. The owner closes it.

    Addresses take turns. If too many comparisons wait, the address with the most
    loses its last one to an address with fewer. A comparison whose requests are all
    cancelled before its turn is dropped. `key` is 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._pool = ThreadPoolExecutor(1, "passwords")
        self._known: dict[bool, BoundedCache[bytes, bool]] = {
            answer: BoundedCache(MAX_REMEMBERED) for answer in (True, False)
        }
        self._answers: SharedCalls[bytes] = SharedCalls()  # by key
        self._queues: OrderedDict[str, deque[_Comparison]] = OrderedDict()  # the next is first
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        accepted, refused = len(self._known[True]), len(self._known[False])
        return f"<Passwords {accepted} accepted, {refused} refused, {len(self._answers)} to come>"

    def close(self) -> None:
        """Begin no further comparison. Requests that wait get a BusyError."""
        if self._running is not None:
            self._running.cancel()  # the requests of the comparison that runs are turned away
        for comparison in chain.from_iterable(self._queues.values()):
            comparison.turn_away()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def verify(
        self, users: Mapping[str, str], name: str, password: bytes, *, address: str = ""
    ) -> bool:
        """Whether `password` is the password of the user `name`.

        `users` has a bcrypt hash for each name. A remembered result is valid for
        that hash only. `address` is the client's address. Raises BusyError.
        """
        stored = users.get(name)
        key = digest(name, stored or "", password, key=self._key, kind="password")
        for known in self._known.values():
            if (answer := known.get(key)) is not None:
                return answer
        most = max(map(_cost, users.values()), default=_USUAL)
        comparison = _Comparison(key, address, password, stored, most)
        try:
            return await self._answers.result(key, lambda: self._line_up(comparison))
        finally:
            if not self._answers.waiting(key):
                self._drop(key)

    def _line_up(self, comparison: _Comparison) -> Coroutine[Any, Any, bool]:
        """Put a comparison into the queue of its address. Raises BusyError."""
        self._make_room(comparison.address)
        self._queues.setdefault(comparison.address, deque()).append(comparison)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return comparison.result()

    def _make_room(self, address: str) -> None:
        """Make room for one more waiting comparison of an address.

        Raises BusyError if `MAX_PER_ADDRESS` of this address wait, or if `MAX_WAITING`
        wait and no other address has at least two more than this one.
        """
        waiting = len(self._queues.get(address, ()))
        if waiting >= MAX_PER_ADDRESS:
            raise BusyError
        if sum(map(len, self._queues.values())) < MAX_WAITING:
            return
        most = max(self._queues.values(), key=len)
        if len(most) <= waiting + 1:
            raise BusyError
        self._remove(most[-1]).turn_away()

    def _remove(self, comparison: _Comparison) -> _Comparison:
        """Remove a comparison from its queue."""
        queue = self._queues[comparison.address]
        queue.remove(comparison)
        if not queue:
            del self._queues[comparison.address]
        return comparison

    def _drop(self, key: bytes) -> None:
        """Give up a comparison that waits. A comparison that has begun goes on."""
        for comparison in chain.from_iterable(self._queues.values()):
            if comparison.key == key:
                self._remove(comparison)
                self._answers.cancel(key)
                return

    async def _run(self) -> None:
        """Run the waiting comparisons one after another, in turns of the addresses."""
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
            self._known[equal].put(comparison.key, equal)
            comparison.settle(equal)
        finally:
            comparison.turn_away()


def _cost(hashed: str) -> int:
    """The cost of a hash: a comparison takes time in proportion to 2^cost."""
    cost = hashed.split("$")[2:3]
    return int(cost[0]) if cost and cost[0].isdecimal() else _USUAL


def _equal(password: bytes, stored: str | None, most: int) -> bool:
    """Whether a password matches a hash. Each call costs as much as a hash of cost `most`.

    The hash of cost c costs 2^c. The further comparisons cost 2^c + 2^(c+1) + ... +
    2^(most-1). Together this is 2^most: the cost for an unknown name.
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
    except ValueError:  # the hash has the form of one, but is invalid
        return False
