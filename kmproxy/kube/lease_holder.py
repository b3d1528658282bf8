"""Takes a Lease, holds it and writes its annotation, until another process has it or may have it.

Knows the requests for a Lease, and when each follows. Must not know the meaning of the annotation,
or what the holder of the Lease does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.lease import JITTER, Election
from kmproxy.kube.permissions import advice, lease

GROUP: Final = "/apis/coordination.k8s.io/v1"

PATIENCE: Final = 5.0
"""Seconds that a request for the Lease may take."""

Text = Callable[[], str | None]
"""Returns the annotation of this moment. None leaves it as it is."""


@dataclass(slots=True, eq=False)
class LeaseHolder:
    """One process that wants to hold a Lease: `acquire`, then `hold`, and again.

    `clock` only goes forward, and goes on while the machine sleeps. `failed` is told of each
    failure, with a message that names the remedy, and `well` is called when it is over.
    """

    api: ApiServer
    election: Election
    _: KW_ONLY
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]
    failed: Callable[[UpstreamError | CredentialError, str], None]
    well: Callable[[], None] = lambda: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    until: float = field(init=False, default=-math.inf)
    """The time by `clock` until which this process may act as the holder."""
    was_released: bool = field(init=False, default=False)
    """Whether the Lease had no holder when it was taken last: the one before is not at work."""
    _wanted: int = field(init=False, default=0)  # calls of `saved`
    _served: int = field(init=False, default=0)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _written: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __repr__(self) -> str:
        return f"<LeaseHolder of {self.election.name}, holder {self.election.holder or 'none'}>"

    @property
    def is_holder(self) -> bool:
        """Whether this process may act as the holder at this moment."""
        return self.clock() < self.until

    @property
    def _path(self) -> str:
        return f"{GROUP}/namespaces/{self.election.namespace}/leases"

    async def acquire(self) -> None:
        """Return once this process is the holder. Tries for ever."""
        while True:
            try:
                if await self._try_to_take():
                    return
            except (UpstreamError, CredentialError, TimeoutError) as error:
                self._note(error)
            await self.sleep(self.election.times.retry * (1 + self.uniform(0.0, JITTER)))

    async def hold(self, text: Text) -> None:
        """Renew the Lease, and write the annotation, until this process is no longer the holder."""
        last, times = -math.inf, self.election.times
        while self.is_holder:
            self._wake.clear()
            pause = times.interval if self._wanted > self._served else times.retry
            wait = min(last + pause, self.until) - self.clock()
            if wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                continue
            last = self.clock()
            try:
                if not await self._renew(text):
                    break
            except (UpstreamError, CredentialError, TimeoutError) as error:
                self._note(error)
        self.until = -math.inf

    async def saved(self) -> None:
        """Return when the annotation of this moment is written. Needs `hold` to run."""
        self._wanted += 1
        number = self._wanted
        self._wake.set()
        while self._served < number:
            self._written.clear()
            await self._written.wait()

    async def admitted(self) -> None:
        """Return at once for the holder. For any other process, wait for ever."""
        if not self.is_holder:
            await asyncio.Event().wait()

    async def release(self, text: Text) -> None:
        """Write the annotation, and let another process take the Lease at once.

        Without an answer the other one waits until the Lease has run out.
        """
        if not self.is_holder:
            return
        try:
            await self._release(text)
        except (UpstreamError, CredentialError, TimeoutError) as error:
            self._note(error)
        self.until = -math.inf

    async def _release(self, text: Text) -> None:
        try:
            await self._write(text(), release=True)
        except ApiError as error:
            if error.code != 409:
                raise
            # The answer to the last renewal was not waited for.
            await self._look()
            if self.election.is_ours:
                await self._write(text(), release=True)

    async def _try_to_take(self) -> bool:
        await self._look()
        election, began = self.election, self.clock()
        if not election.may_take(began):
            self.well()
            return False
        was_released = not election.holder
        try:
            await self._write(None)
        except ApiError as error:
            if error.code == 409:
                return False
            raise
        self.well()
        self.until, self.was_released = began + self.election.times.deadline, was_released
        return True

    async def _renew(self, text: Text) -> bool:
        """Write the Lease once. Return False if another process has it."""
        began, wanted = self.clock(), self._wanted
        try:
            async with asyncio.timeout(max(0.0, self.until - began)):
                await self._write(text())
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
            # Somebody has changed the Lease, or an answer to an earlier write was lost.
            await self._look()
            return self.election.is_ours or not self.election.holder
        self.until = began + self.election.times.deadline
        self._served = wanted
        self.well()
        self._written.set()
        return True

    async def _look(self) -> None:
        """Observe the Lease. Raises UpstreamError, CredentialError or TimeoutError."""
        data: bytearray | None = None
        path = f"{self._path}/{self.election.name}"
        try:
            async with asyncio.timeout(PATIENCE):
                data = await self.api.get(path, {}, accept="application/json")
        except ApiError as error:
            if error.code != 404:
                raise self._explained(error, "get") from error
        self.election.observe(data, self.clock())

    async def _write(self, text: str | None, *, release: bool = False) -> None:
        """Create or replace the Lease, and observe it."""
        election = self.election
        document = election.written(self.wall(), text, release=release)
        is_new = "resourceVersion" not in document["metadata"]
        path = self._path if is_new else f"{self._path}/{election.name}"
        try:
            async with asyncio.timeout(PATIENCE):
                data = await self.api.post(path, document, method="POST" if is_new else "PUT")
        except ApiError as error:
            raise self._explained(error, "create" if is_new else "update") from error
        election.observe(data, self.clock())

    def _explained(self, error: ApiError, verb: str) -> UpstreamError:
        """Name the missing right."""
        if error.code != 403:
            return error
        election = self.election
        wanted = [each for each in lease(election.namespace, election.name) if each.verb == verb]
        message = f"the API server forbids to {verb} the Lease {election.name}: {advice(*wanted)}"
        return UpstreamError(error.reason, message)

    def _note(self, error: UpstreamError | CredentialError | TimeoutError) -> None:
        if isinstance(error, TimeoutError):
            message = f"the API server did not answer about the Lease {self.election.name}"
            error = UpstreamError("timeout", message)
        self.failed(error, error.summary if isinstance(error, ApiError) else str(error))
