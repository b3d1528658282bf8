"""Pushes batches of lines to Loki's push endpoint, and acknowledges the lines that were taken.

Knows requests, delays and the order of pushes. Must not know files, or how lines are read.

A push is tried again for ever, with full jitter, unless a line is at fault. A tenant has one push
under way, and its next push begins after `saved` has returned, so a kill repeats at most one batch
of each tenant. A push whose answer was lost is sent again and may be stored twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kmproxy.client.upstream import Upstream
from kmproxy.content_coding import GzipEncoder
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.reviews import LogThrottle
from kmproxy.logs.batches import Batches
from kmproxy.logs.loki import (
    ANSWER_BYTES,
    REASONS,
    Delivery,
    Endpoint,
    Entries,
    Outcome,
    advice,
    body,
)
from kmproxy.logs.queues import Batch
from kmproxy.telemetry import bounded

NAME: Final = "log endpoint"
"""The name of the endpoint in error messages."""

PATIENCE: Final = 30.0
"""Seconds for the answer to a push."""

BODY_PATIENCE: Final = 5.0
"""Seconds for the body of an answer, of which only the words of a refusal are used."""

CONNECTIONS: Final = 16
"""Pushes that wait for an answer at the same time. Others wait for their turn."""

RETRY_AFTER_LIMIT: Final = 60.0
"""Seconds of the longest wait that an endpoint can ask for."""

PAUSE: Final = 60.0
"""Seconds between two log lines with one reason."""

_UNSENT: Final = frozenset({"proxy", "refused", "tls", "unreachable", "unresolved"})
"""Failures before any byte of a push was sent."""

_STATUSES: Final = frozenset({204, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504})

_log = logging.getLogger(__package__)


class SendMetrics:
    """Counts pushes and lines. `lost` is the counter of all parts that leave lines out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lines = Counter(
            "kmproxy_log_lines_sent", "Lines that the endpoint took.", registry=registry
        )
        self.bytes = Counter(
            "kmproxy_log_bytes_sent", "Bytes of the lines that it took.", registry=registry
        )
        self.pushes = Counter(
            "kmproxy_log_pushes",
            "Answers to pushes, by status; 'none' is a push without an answer.",
            ["status"],
            registry=registry,
        )
        self.pushes.labels("204")
        self.retries = Counter(
            "kmproxy_log_push_retries",
            "Pushes that are tried again, by reason.",
            ["reason"],
            registry=registry,
        )
        self.seconds = Histogram(
            "kmproxy_log_push_seconds",
            "Time from the request of a push to its answer.",
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 30),
            registry=registry,
        )
        self.lost = Counter(
            "kmproxy_log_lines_lost",
            "Lines that were left out, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self.lost.labels(reason)
        self.not_utf8 = Counter(
            "kmproxy_log_lines_not_utf8",
            "Lines in which bytes that are not UTF-8 were replaced.",
            registry=registry,
        )
        self.moved = Counter(
            "kmproxy_log_lines_moved",
            "Lines sent with a later nanosecond, because Loki drops an equal line otherwise.",
            registry=registry,
        )
        self.repeated = Counter(
            "kmproxy_log_lines_repeated",
            "Lines sent again after an answer that does not exclude that they were stored.",
            registry=registry,
        )
        self._oldest = Gauge(
            "kmproxy_log_oldest_unsent_seconds",
            "Age of the oldest line in memory, 0 without one.",
            registry=registry,
        )
        self._held = Gauge(
            "kmproxy_log_buffer_bytes", "Memory that unsent lines take.", registry=registry
        )
        self._unlabelled = Gauge(
            "kmproxy_log_lines_waiting",
            "Lines that wait for the labels of their namespace or pod.",
            registry=registry,
        )

    def count(self, what: str, number: int) -> None:
        """Count lines for `Batches`."""
        match what:
            case "not_utf8":
                self.not_utf8.inc(number)
            case "moved":
                self.moved.inc(number)
            case _:
                self.lost.labels(what).inc(number)

    def show(self, batches: Batches, wall_clock: Callable[[], float]) -> None:
        """Show the state of the batches whenever the metrics are read."""

        def age() -> float:
            oldest = batches.oldest()
            return 0.0 if oldest is None else max(0.0, wall_clock() - oldest / 1e9)

        self._oldest.set_function(age)
        self._held.set_function(lambda: batches.held)
        self._unlabelled.set_function(lambda: batches.unlabelled)


@dataclass(slots=True, eq=False)
class Sender:
    """Sends the batches of `batches` to one URL, until it is closed.

    `saved` returns when the acknowledged positions are on disk. `uniform` draws the jitter. An
    answer may take `patience` seconds.
    """

    upstream: Upstream
    url: str = field(repr=False)  # its query may hold a key
    batches: Batches
    metrics: SendMetrics
    _: KW_ONLY
    saved: Callable[[], Awaitable[None]]
    clock: Callable[[], float]
    uniform: Callable[[float, float], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    patience: float = PATIENCE
    endpoint: Endpoint = field(default_factory=Endpoint)
    last_error: str | None = field(init=False, default=None)
    """The last failure, for the status page. None after a push that was taken."""
    _pushes: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _freed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _empty: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _closed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _turns: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(CONNECTIONS)
    )
    _throttle: LogThrottle = field(init=False, default_factory=lambda: LogThrottle(PAUSE))

    def __post_init__(self) -> None:
        self.batches.notify = self._wake.set
        self.batches.freed = self._freed.set

    def __repr__(self) -> str:
        return f"<Sender {len(self._pushes)} pushes under way, {self.batches!r}>"

    async def run(self) -> None:
        """Send batches until `close` ends that. An error that is no failure of a push is raised."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self._closed.is_set():
                    self._wake.clear()
                    for batch in self.batches.ready():
                        push = group.create_task(self._deliver(batch))
                        self._pushes.add(push)
                        push.add_done_callback(self._pushes.discard)
                    if self.batches.flushing and not self.batches.sendable:
                        self._empty.set()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self.batches.wait()):
                            await self._wake.wait()
                for push in [*self._pushes]:
                    push.cancel()
        finally:
            self._empty.set()

    async def close(self, grace: float) -> None:
        """Send what can be sent within `grace` seconds, and end `run`.

        Lines that were not taken by then stay unacknowledged.
        """
        self.batches.flushing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        self._closed.set()
        self._wake.set()

    async def room(self) -> int:
        """Wait until there is room for lines. Returns the bytes, more than 0."""
        while not self.batches.room:
            self._freed.clear()
            await self._freed.wait()
        return self.batches.room

    async def _deliver(self, batch: Batch) -> None:
        """Push a batch until each line is taken or left out."""
        delivery = Delivery(batch.entries, self.endpoint)
        backoff = Backoff(uniform=self.uniform)
        pushed: Entries | None = None
        coded = b""
        while (part := delivery.part()) is not None:
            if part is not pushed:
                coded, pushed = _coded(part), part
                self.batches.weigh(batch, len(coded))
            outcome, at_least, unreached = await self._push(delivery, coded, batch.tenant)
            self._settle(batch, outcome)
            if outcome.taken or outcome.lost:
                await self.saved()
                backoff = Backoff(uniform=self.uniform)
            if outcome.wait:
                delay = backoff.delay(self.clock(), at_least=at_least, unreached=unreached)
                await self.sleep(delay)
        self.batches.done(batch)

    async def _push(
        self, delivery: Delivery, coded: bytes, tenant: str | None
    ) -> tuple[Outcome, float, bool]:
        """Send one push. Returns its outcome, the least wait, and whether nothing was reached."""
        headers = {"Content-Encoding": "gzip", "VL-Loki-Disable-Message-Parsing": "1"}
        if tenant is not None:
            headers["X-Scope-OrgID"] = tenant
        async with self._turns:
            begin = self.clock()
            try:
                async with self.upstream.post(
                    self.url, coded, headers=headers, silence=self.patience
                ) as response:
                    status = response.status
                    wait = _retry_after(response)
                    text = await _beginning(response, self.upstream)
            except UpstreamError as error:
                return self._failed(delivery, error.reason, str(error))
            except CredentialError as error:
                return self._failed(delivery, "credential", str(error))
            self.metrics.seconds.observe(self.clock() - begin)
        known = str(status) if status in _STATUSES else f"{status // 100}xx"
        self.metrics.pushes.labels(known).inc()
        outcome = delivery.answered(status, text)
        if outcome.taken:
            self.last_error = None
        if outcome.wait:
            self.metrics.retries.labels(known).inc()
            message = f"the {NAME} answered a push with {status}: {advice(status)}"
            self._say(known, f"{message}; it is tried again, and reading waits")
        return outcome, wait, False

    def _failed(self, delivery: Delivery, reason: str, message: str) -> tuple[Outcome, float, bool]:
        """The outcome of a push without an answer."""
        self.metrics.pushes.labels("none").inc()
        self.metrics.retries.labels(bounded(reason)).inc()
        self._say(bounded(reason), f"{message}; the push is tried again, and reading waits")
        unsent = reason in _UNSENT
        return delivery.failed(stored=not unsent), 0.0, unsent

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        metrics = self.metrics
        for entry, reason in outcome.lost:
            metrics.lost.labels(reason).inc()
            where = f"a line of {entry.size} bytes was left out: {NAME} refuses it ({reason})"
            self._say(f"lost {reason}", where)
        if outcome.taken:
            metrics.lines.inc(len(outcome.taken))
            metrics.bytes.inc(sum(entry.size for entry in outcome.taken))
        metrics.repeated.inc(outcome.repeated)
        self.batches.settle(batch, [entry for entry, _ in outcome.lost])
        self.batches.settle(batch, outcome.taken)

    def _say(self, reason: str, message: str) -> None:
        self.last_error = message
        if (unsaid := self._throttle.lets(reason, self.clock())) is not None:
            more = f" ({unsaid} more of such lines were left out)" if unsaid else ""
            _log.warning("%s%s", message, more)


def _coded(part: Entries) -> bytes:
    encoder = GzipEncoder()
    return encoder.feed(body(part)) + encoder.finish()


async def _beginning(response: aiohttp.ClientResponse, upstream: Upstream) -> bytes:
    """The first bytes of an answer. A longer or slow answer ends its connection."""
    text = b""
    with contextlib.suppress(TimeoutError, UpstreamError):  # the status is known already
        async with asyncio.timeout(BODY_PATIENCE):
            async for piece in upstream.pieces(response):
                text += piece[:ANSWER_BYTES]
                if len(text) >= ANSWER_BYTES:
                    break
    return text[:ANSWER_BYTES]


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), RETRY_AFTER_LIMIT) if text.isascii() and text.isdigit() else 0.0
