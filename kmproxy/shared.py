"""Calls that run once for all tasks that wait for the result, and values that calls fetch.

Knows calls in flight, the tasks that wait for them, and the age of a value. Must not know what
is called. Clocks are passed in, in seconds.

For every call here:

- Only one runs at a time. A task that asks meanwhile waits for the same result.
- A waiting task that is cancelled stops waiting. The call goes on, also when no task waits.
  Without `keep`, a call that no task waits for any more is cancelled. The last task waits for its
  end, and a new call may begin meanwhile.
- If the call fails, every waiting task gets the error. The next task begins a new call.
- `close` cancels the call and waits for its end. Waiting tasks get `asyncio.CancelledError`, and
  so does every task that asks later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kmproxy.errors import UpstreamError

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class SharedCall(Generic[_T]):
    """One call, of the function `call`. After its end it can begin again."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, _T]], *, keep: bool = True) -> None:
        self._call = call
        self._keep = keep
        self._task: asyncio.Task[_T] | None = None
        self._closed = False
        self.waiting = 0
        """How many tasks wait for the call."""

    def __repr__(self) -> str:
        state = f"{self.waiting} waiting" if self.running else "idle"
        return f"<SharedCall {state}>"

    @property
    def running(self) -> bool:
        """Whether the call has begun and not ended."""
        return self._task is not None and not self._task.done()

    def begin(self) -> asyncio.Task[_T]:
        """Begin the call, unless it runs. Returns its task, which no other code may cancel."""
        if self._closed:
            raise asyncio.CancelledError
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._call())
        return self._task

    async def result(self) -> _T:
        """The result of the call that runs, or of a new one. Raises the call's errors."""
        task = self.begin()
        task.add_done_callback(_seen)
        self.waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self.waiting -= 1
            if not (self._keep or self.waiting or task.done()):
                self._task = None
                task.cancel()
                await asyncio.wait({task})

    def cancel(self) -> None:
        """Cancel the call, as `close` does, without waiting for its end."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Cancel the call and wait for its end. No call begins from now on."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class SharedCalls(Generic[_K]):
    """Calls by their keys: one at a time for each key. A call is forgotten when it ends."""

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._running: dict[_K, SharedCall[Any]] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<SharedCalls {len(self)} running>"

    def __len__(self) -> int:
        """The number of calls that run."""
        return len(self._running)

    def waiting(self, key: _K) -> int:
        """How many tasks wait for the call of this key."""
        return self._running[key].waiting if key in self._running else 0

    async def result(self, key: _K, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The result of the call that runs for the key, or of `call`. Raises the call's errors.

        `call` may refuse at once: an error that it raises before it returns a coroutine reaches
        this task only.
        """
        if self._closed:
            raise asyncio.CancelledError
        shared: SharedCall[_T] | None = self._running.get(key)
        if shared is None or not shared.running:
            shared = begun = SharedCall(call, keep=self._keep)
            begun.begin().add_done_callback(lambda _: self._forget(key, begun))
            self._running[key] = begun
        return await shared.result()

    def cancel(self, key: _K) -> None:
        """Cancel the call of a key, if it runs. Waiting tasks get `asyncio.CancelledError`.

        The next task that asks begins a new call.
        """
        if (shared := self._running.pop(key, None)) is not None:
            shared.cancel()

    async def close(self) -> None:
        """Cancel all calls and wait for their end. No call begins from now on."""
        self._closed = True
        await asyncio.gather(*(shared.close() for shared in list(self._running.values())))

    def _forget(self, key: _K, ended: SharedCall[Any]) -> None:
        if self._running.get(key) is ended:
            del self._running[key]


@dataclass(frozen=True, slots=True)
class Found(Generic[_T]):
    """A value, and its age: the seconds since the start of the call that fetched it."""

    value: _T
    age: float


class SharedValue(Generic[_T]):
    """A value that is fetched on request, by a call that all requests share.

    After the end of a fetch, good or failed, no new fetch begins for `interval` seconds. A fetched
    value is returned until the next fetch ends. While the next fetch runs or has failed, the value
    is returned until it is `max_age` seconds old. An `UpstreamError` of `fetch` is remembered like
    a value, and every request gets a copy. One with status 404 removes the value at once. Any
    other error reaches only the requests that wait for that fetch. `name` is the value's name in
    messages.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[_T]],
        name: str,
        *,
        interval: float,
        max_age: float,
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._interval = interval
        self._max_age = max_age
        self._clock = clock
        self._call = SharedCall(self._run)
        self._began = -math.inf  # the start of the last fetch, also while it runs
        self._ended = -math.inf  # the start of the last fetch, once it is good or failed
        self._ask_at = -math.inf
        self._error: UpstreamError | None = None  # of the last fetch
        self._good: tuple[_T, float] | None = None  # the value, and the start of its fetch

    def __repr__(self) -> str:
        state = self._error or "well"
        age = f"{self._clock() - self._good[1]:.0f}s old" if self._good else "nothing"
        return f"<SharedValue {self._name}, {age}, {state}>"

    @property
    def held(self) -> _T | None:
        """The value of the last good fetch, of any age, or None."""
        return self._good[0] if self._good else None

    async def get(self, patience: float, *, asked_after: float | None = None) -> Found[_T]:
        """The value. Waits at most `patience` seconds for it. Raises UpstreamError.

        With `asked_after`, a time of the clock that has come, only a fetch that began at that time
        or later counts, good or failed. A fetch that began before does not count, even if it still
        runs. The request then waits for the next fetch, and for the pause of `interval` before it.
        """
        try:
            async with asyncio.timeout(patience) as limit:
                if asked_after is not None:
                    await self._fetched_after(asked_after)
                elif self._clock() >= self._ask_at:
                    await self._call.result()
        except TimeoutError:
            if not limit.expired():
                raise
        if asked_after is not None and self._ended < asked_after:
            raise self._late(patience)
        if self._good is not None:
            value, since = self._good
            age = self._clock() - since
            newest = not self._call.running and self._error is None
            good = newest or age < self._max_age if asked_after is None else since >= asked_after
            if good:
                return Found(value, age)
        if (error := self._error) is None:
            raise self._late(patience)
        raise _copy(error)

    async def close(self) -> None:
        """Cancel a running fetch. No fetch begins from now on."""
        await self._call.close()

    async def _fetched_after(self, moment: float) -> None:
        while self._ended < moment:
            pause = self._ask_at - self._clock()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            try:
                await self._call.result()
            except Exception:
                if self._began >= moment:
                    raise

    async def _run(self) -> None:
        began = self._began = self._clock()
        try:
            self._good = (await self._fetch(), began)
            self._ended, self._error = began, None
        except UpstreamError as error:
            # The error itself would keep the frames of the fetch, and all that they had read.
            self._ended, self._error = began, _copy(error)
            if error.status == 404:
                self._good = None
        finally:
            self._ask_at = self._clock() + self._interval

    def _late(self, patience: float) -> UpstreamError:
        return UpstreamError("timeout", f"no {self._name} within {patience:g} s", status=504)


def _copy(error: UpstreamError) -> UpstreamError:
    """An error with the same reason, message and status, and without a traceback."""
    return UpstreamError(error.reason, str(error), status=error.status)


def _seen(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as seen: perhaps every task that waited for it was cancelled."""
    if not task.cancelled():
        task.exception()
