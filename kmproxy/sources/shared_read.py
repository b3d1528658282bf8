"""One read of a kubelet's answer, for all readers that want it: its bytes so far, and its end.

Knows the bytes that are held, the position of each reader, and the room that all reads share. Must
not know where the bytes come from, which read is for which node, or how long one may be used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from kmproxy.errors import CredentialError, SlowClientError, UpstreamError

PIECE = 1 << 16
"""Bytes that a reader takes at once, at most."""

WINDOW = 1 << 18
"""Bytes that a read holds for its slowest reader, also while the room is full."""

LAG = 2.0
"""Seconds for which the slowest reader may hold back a read that has no room, and with it the
readers that have taken everything."""

COST = 2048
"""Bytes that a read is counted with in addition to the blocks of its answer."""


@dataclass(slots=True)
class Room:
    """The bytes that several objects hold together, and their limit."""

    limit: int
    held: int = 0

    def __repr__(self) -> str:
        return f"<Room {self.held} of {self.limit} bytes>"

    @property
    def full(self) -> bool:
        """Whether the objects hold more than their limit."""
        return self.held > self.limit


@dataclass(frozen=True, slots=True)
class Head:
    """The Content-Type of an answer, the content coding of its bytes, and when it had begun."""

    content_type: str
    coding: str
    began: float = 0.0


@dataclass(slots=True, eq=False)
class Reader:
    """The position of the next byte that a reader takes, and whether the reader is cut off."""

    position: int = 0
    cut: bool = False


class SharedRead:
    """A read that began at `began`, in seconds of the clock of its owner.

    One task writes: `begin`, `append`, then `end` or `fail`. Each reader takes the bytes from the
    first one on, at its own speed. While the read is `open`, it holds all bytes for readers to
    come. After `close` it holds only the bytes that a reader has still to take, and at most `PIECE`
    more: it holds bytes in blocks, as one array would be copied whole when it grows. `proven` says
    whether a reader has decoded the bytes to a proven end.
    """

    def __init__(self, began: float, room: Room) -> None:
        self.began = began
        self.open = True
        self.proven = False
        self._room = room
        self._head: Head | None = None
        self._blocks: list[bytearray] = []  # of PIECE bytes each, but for the last
        self._allocated = 0  # bytes of memory of the blocks
        self._base = 0  # the position of the first byte that is held
        self._end = 0  # the position behind the last byte
        self._ended = False
        self._error: Exception | None = None
        self._readers: set[Reader] = set()
        self._arrived = asyncio.Event()  # replaced at each arrival
        self._taken = asyncio.Event()
        self._counted = 0
        self._count()

    def __repr__(self) -> str:
        state = "failed" if self._error else "proven" if self.proven else "under way"
        return f"<SharedRead {self.held} bytes, {len(self._readers)} readers, {state}>"

    @property
    def held(self) -> int:
        """The bytes of the answer that are held."""
        return self._end - self._base

    @property
    def wanted(self) -> bool:
        """Whether the read has a reader."""
        return bool(self._readers)

    def begin(self, head: Head) -> None:
        """Take the head of the answer."""
        self._head = head
        self._wake()

    def append(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            if not self._blocks or len(self._blocks[-1]) == PIECE:
                self._blocks.append(bytearray())
            block = self._blocks[-1]
            self._allocated -= block.__alloc__()
            part, view = view[: PIECE - len(block)], view[PIECE - len(block) :]
            block += part
            self._allocated += block.__alloc__()
        self._end += len(data)
        self._count()
        self._wake()

    def end(self) -> None:
        """Take the end that the framing proves."""
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Let every reader fail. The first error counts."""
        self._error = self._error or error
        self._wake()

    def close(self) -> None:
        """Admit no more readers, and drop the bytes that no reader has to take any more."""
        self.open = False
        self._trim()

    async def drained(self) -> None:
        """Wait until the room suffices, or the slowest reader has taken all but `WINDOW` bytes.

        If that takes over `LAG` seconds and another reader has taken everything, the slow readers
        are cut off. Only for a read that is closed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LAG
        while self._room.full and self._end - self._slowest > WINDOW:
            if loop.time() >= until:
                until = loop.time() + LAG
                self._cut_slow()
                continue
            self._taken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._taken.wait()

    def join(self) -> Reader:
        """Add a reader, from the first byte on. It must `leave`."""
        if not self.open:
            raise ValueError("the read no longer has its first bytes")
        reader = Reader()
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Remove a reader, at whatever position it is."""
        self._readers.discard(reader)
        if not self.open:
            self._trim()

    async def head(self) -> Head:
        """Wait for the head of the answer. Raises the error of the read."""
        while True:
            self._raise_error()
            if self._head is not None:
                return self._head
            await self._arrived.wait()

    async def pieces(self, reader: Reader) -> AsyncGenerator[bytes, None]:
        """The bytes for a reader as they arrive, to their end.

        Raises the error of the read, or SlowClientError if the others could not wait for this one.
        """
        while True:
            if reader.cut:
                raise SlowClientError(
                    "the client read its answer too slowly for the scrapes that share the read"
                )
            self._raise_error()
            if reader.position < self._end:
                block, at = divmod(reader.position - self._base, PIECE)
                piece = bytes(memoryview(self._blocks[block])[at:])
                reader.position += len(piece)
                if not self.open:
                    self._trim()
                yield piece
            elif self._ended:
                return
            else:
                await self._arrived.wait()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise _anew(self._error)

    def _cut_slow(self) -> None:
        """Cut off the readers for which too much is held, if another one waits for more."""
        left = {reader: self._end - reader.position for reader in self._readers}
        if 0 not in left.values():
            return
        for reader, missing in left.items():
            if missing > WINDOW:
                reader.cut = True
                self._readers.discard(reader)
        self._trim()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    @property
    def _slowest(self) -> int:
        """The position of the reader that has taken least, or the end without a reader."""
        return min((reader.position for reader in self._readers), default=self._end)

    def _trim(self) -> None:
        """Drop the blocks that every reader has taken. Without a reader, drop all."""
        if self._readers:
            taken = (self._slowest - self._base) // PIECE
            self._base += taken * PIECE
        else:
            taken, self._base = len(self._blocks), self._end
        self._allocated -= sum(block.__alloc__() for block in self._blocks[:taken])
        del self._blocks[:taken]
        self._count()
        self._taken.set()

    def _count(self) -> None:
        gone = not self.open and not self._readers
        size = 0 if gone else COST + self._allocated
        self._room.held += size - self._counted
        self._counted = size


def _anew(error: Exception) -> Exception:
    """An error for one of several readers: each is raised once, with its own traceback."""
    anew: Exception
    if isinstance(error, UpstreamError):
        anew = UpstreamError(error.reason, str(error), status=error.status)
    elif isinstance(error, CredentialError):
        anew = CredentialError(str(error), credential=error.credential)
    else:
        return error
    anew.__cause__ = error
    return anew
