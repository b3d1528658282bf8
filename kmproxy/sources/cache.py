"""Answers of kubelets that serve several scrapes: read once, kept as they came for a short time.

Knows which answers may be shared, how old they may be, and how many bytes are kept. Must not know
what is done to an exposition. Only an answer that is proven to be whole is kept, never a failure.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.errors import UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.sources.answer import Answer, Exposition
from kmproxy.sources.endpoints import CADVISOR, RESOURCE
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.shared_read import WINDOW, Head, Reader, Room, SharedRead

SHARED: Final = frozenset({CADVISOR, RESOURCE})
"""The endpoints whose samples bear their own timestamps. Of another endpoint an older answer would
be taken for the values of now."""

_Key = tuple[Node, str]
"""A node as it was found, with its uid and its address, and the endpoint."""


class SharedReadMetrics:
    """Counts scrapes by how they were served, and the bytes that are kept for other scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.scrapes = Counter(
            "kmproxy_shared_reads",
            "Scrapes with --share-reads: 'hit' was served from memory, 'joined' came while "
            "another scrape's read was under way, 'read' began one.",
            ["result"],
            registry=registry,
        )
        for result in ("hit", "joined", "read"):
            self.scrapes.labels(result)
        self.held = Gauge(
            "kmproxy_shared_read_bytes",
            "Bytes of kubelets' answers that are held for scrapes, with --share-reads.",
            registry=registry,
        )


class SharedReads:
    """Fetches from kubelets. One read serves the scrapes of `max_age` seconds from its beginning.

    All reads together hold `room` bytes; the one used least recently goes first. Beyond that, an
    answer is streamed to the scrapes that wait for it, and not kept. A read takes at most `longest`
    seconds, and ends when no scrape waits for it.
    """

    def __init__(
        self,
        kubelet: Kubelet,
        *,
        max_age: float,
        room: int,
        longest: float,
        metrics: SharedReadMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._kubelet = kubelet
        self._max_age = max_age
        self._room = Room(room)
        self._longest = longest
        self._clock = clock
        self._metrics = metrics
        metrics.held.set_function(lambda: self._room.held)
        self._reads: OrderedDict[_Key, SharedRead] = OrderedDict()  # all open; last used last
        self._by_age: dict[SharedRead, _Key] = {}  # the same; the oldest first
        self._tasks: dict[SharedRead, asyncio.Task[None]] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        under_way = len(self._tasks)
        return f"<SharedReads {len(self._reads)} to share, {under_way} under way, {self._room!r}>"

    @asynccontextmanager
    async def fetch(self, node: Node, endpoint: str) -> AsyncIterator[Exposition]:
        """Fetch an endpoint of a node, or share the read of another scrape. Raises UpstreamError.

        Raises SlowClientError if the read has no room to wait for this scrape.
        """
        if endpoint not in SHARED:
            async with self._kubelet.fetch(node, endpoint) as exposition:
                yield exposition
            return
        read = self._find((node, endpoint))
        reader = read.join()
        try:
            head = await read.head()
            async with aclosing(self._decoded(read, head, reader)) as pieces:
                yield Exposition(head.content_type, pieces, head.began)
        finally:
            read.leave(reader)
            if not read.wanted and not (read.open and read.proven):
                self._drop(read)

    async def close(self) -> None:
        """End all reads, and drop the answers that are kept."""
        if self._expiry is not None:
            self._expiry.cancel()
        for read in [*self._by_age, *self._tasks]:
            self._drop(read)
            read.fail(UpstreamError("ended", "kmproxy is stopping", status=503))
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _find(self, key: _Key) -> SharedRead:
        """The read for a scrape that comes now."""
        now = self._clock()
        read = self._reads.get(key)
        if read is not None and now < read.began + self._max_age:
            self._reads.move_to_end(key)
            self._metrics.scrapes.labels("hit" if read.proven else "joined").inc()
            return read
        if read is not None:
            self._drop(read)
        self._metrics.scrapes.labels("read").inc()
        read = self._reads[key] = SharedRead(now, self._room)
        self._by_age[read] = key
        self._tasks[read] = task = asyncio.create_task(self._read(key, read))
        task.add_done_callback(lambda _: self._tasks.pop(read, None))
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(self._max_age, self._expire)
        return read

    async def _read(self, key: _Key, read: SharedRead) -> None:
        """Read an answer to its end. Its readers get every error."""
        try:
            async with asyncio.timeout(self._longest), self._kubelet.open(*key) as answer:
                read.begin(Head(answer.content_type, answer.coding, self._clock()))
                async for piece in answer.pieces:
                    read.append(piece)
                    self._make_room()
                    if not read.open:
                        await read.drained()
        except TimeoutError:
            message = f"no whole answer from the kubelet within {self._longest:g} s"
            self._fail(read, UpstreamError("timeout", message, status=504))
        except Exception as error:  # noqa: BLE001 - each reader raises it
            self._fail(read, error)
        else:
            read.end()

    async def _decoded(
        self, read: SharedRead, head: Head, reader: Reader
    ) -> AsyncGenerator[bytes, None]:
        """Decode an answer for one reader. The end proves the read, an error fails all readers."""
        async with aclosing(read.pieces(reader)) as received:
            answer = Answer(head.content_type, head.coding, received)
            try:
                async with aclosing(self._kubelet.decoded(answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            except UpstreamError as error:
                self._fail(read, error)
                raise
            read.proven = True

    def _fail(self, read: SharedRead, error: Exception) -> None:
        read.fail(error)
        self._drop(read)

    def _drop(self, read: SharedRead) -> None:
        """Give a read to no more scrapes. Without a reader, end it."""
        if (key := self._by_age.pop(read, None)) is not None:
            del self._reads[key]
        read.close()
        if not read.wanted and (task := self._tasks.get(read)) is not None:
            task.cancel()

    def _make_room(self) -> None:
        """Drop reads until their bytes fit the room: the least recently used one without a reader.

        If all have readers, the largest is dropped, which goes on for these readers only. A read of
        at most `WINDOW` bytes that has a reader stays.
        """
        while self._room.full and self._reads:
            reads = self._reads.values()
            unused = next((read for read in reads if not read.wanted), None)
            read = unused or max(reads, key=lambda read: read.held)
            if read.wanted and read.held <= WINDOW:
                return
            self._drop(read)

    def _expire(self) -> None:
        """Drop reads that are too old, and set the timer for the oldest of the others."""
        self._expiry = None
        now = self._clock()
        while self._by_age:
            oldest = next(iter(self._by_age))
            left = oldest.began + self._max_age - now
            if left > 0:
                loop = asyncio.get_running_loop()
                self._expiry = loop.call_later(left, self._expire)
                return
            self._drop(oldest)
