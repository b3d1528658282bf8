"""Enriches an exposition and sends it to the client while it arrives.

Knows when the first byte of a response is sent, and how its body is encoded. Must not know paths,
statuses or where an exposition comes from. If the stream fails after the first byte, the code that
called it must break the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import HttpVersion11, hdrs, web
from prometheus_client import CollectorRegistry, Counter

from kmproxy.auth.tenant import TenantStream
from kmproxy.content_coding import GzipEncoder, accepts_gzip
from kmproxy.exposition.lines import portions
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.labels.label_map import LabelMap
from kmproxy.scrape.pod_lists import ScrapePods
from kmproxy.scrape.source import Source
from kmproxy.sources.answer import Exposition
from kmproxy.sources.slots import Slot
from kmproxy.status.outcomes import Attempt

_LEAST_LABEL = len(b',a="b"')


class SampleMetrics:
    """Counts the samples and lines of expositions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = Counter("kmproxy_samples", "Samples seen.", registry=registry)
        self._enriched = Counter(
            "kmproxy_samples_enriched",
            "Samples that got or changed a label.",
            registry=registry,
        )
        self._unparsed = Counter(
            "kmproxy_lines_unparsed",
            "Lines that could not be understood, passed on unchanged.",
            registry=registry,
        )
        self._conflicts = Counter(
            "kmproxy_label_conflicts",
            "Labels of the rules that a sample already had.",
            registry=registry,
        )
        self._dropped = Counter(
            "kmproxy_samples_dropped",
            "Samples left out, by reason; 'merged' equalled another series without its dropped "
            "labels, 'tenant' is not the caller's, 'unparsed' may be any tenant's, and the pod "
            "of 'unknown_pod' is not in its kubelet's list.",
            ["by"],
            registry=registry,
        )

    def count(self, pipeline: Pipeline) -> None:
        """Count an exposition that has passed through a pipeline, wholly or in part."""
        enricher = pipeline.enricher
        self._samples.inc(enricher.samples)
        self._enriched.inc(enricher.enriched)
        self._unparsed.inc(enricher.unparsed)
        self._conflicts.inc(enricher.conflicts)
        self.count_dropped(pipeline.dropped)

    def count_dropped(self, dropped: Mapping[str, int]) -> None:
        """Count samples that were left out of a response, by reason."""
        for reason, count in dropped.items():
            self._dropped.labels(reason).inc(count)


@dataclass(frozen=True, slots=True, eq=False)
class Streamer:
    """Streams expositions with labels of `labels`."""

    labels: LabelMap
    metrics: SampleMetrics

    async def stream(
        self,
        exposition: Exposition,
        request: web.Request,
        response: web.StreamResponse,
        *,
        source: Source,
        recipe: Recipe,
        slot: Slot,
        tenant: TenantStream | None,
        attempt: Attempt,
    ) -> None:
        """Send a whole exposition. The first bytes begin the response. A HEAD gets the head alone.

        The `source` has the room for series, and the pods of its node if the recipe needs them.
        `slot` has the end of the time, and counts the bytes that the client takes. A tenant gets
        the part that it sees. `attempt` gets the numbers of samples. Raises ExpositionError, and
        the errors of the source, the tenant, the pods and the client's connection.
        """
        response.headers[hdrs.CONTENT_TYPE] = exposition.content_type
        encoder = _encoder(request, response)
        pods = source.pods(exposition, slot.deadline)
        lookup = pods.lookup if pods else None
        pipeline = Pipeline(self.labels.lookup, recipe, room=source.room, pods=lookup)
        head = request.method == hdrs.METH_HEAD
        growth = self._growth(recipe.namespace_labels, pods)
        try:
            async with aclosing(_portions(exposition.pieces, growth)) as pieces:
                async for piece in pieces:
                    data = await tenant.feed(piece) if tenant else piece
                    data = await _fed(pipeline, data, pods)
                    if encoder:
                        data = encoder.feed(data)
                    if head and data:
                        break
                    if data:
                        if not response.prepared:
                            await response.prepare(request)
                        await slot.sent(len(data), response.write(data))
            rest = await _fed(pipeline, await tenant.finish(), pods) if tenant else b""
            data = rest + await _finished(pipeline, pods)
            if encoder:
                data = encoder.feed(data) + encoder.finish()
            if not response.prepared:
                await response.prepare(request)
            if not head:
                await slot.sent(len(data), response.write_eof(data))
        finally:
            pipeline.close()
            self.metrics.count(pipeline)
            attempt.samples = pipeline.enricher.samples
            attempt.labelled = pipeline.enricher.enriched
            if tenant:
                self.metrics.count_dropped(tenant.dropped)

    def _growth(self, names: NamespaceLabels, pods: ScrapePods | None) -> Callable[[], int]:
        """A function that returns the most bytes that a sample's labels have now."""
        return lambda: _growth(self.labels.longest, names) + (pods.longest if pods else 0)


async def _fed(pipeline: Pipeline, data: bytes, pods: ScrapePods | None) -> bytes:
    """Feed a pipeline. If it needs the pods of the node, wait for a list of them."""
    while True:
        try:
            return pipeline.feed(data)
        except PodsNeededError:
            if pods is None:
                raise
            await pods.list()
            data = b""


async def _finished(pipeline: Pipeline, pods: ScrapePods | None) -> bytes:
    """Finish a pipeline. If it needs the pods of the node, wait for a list as `_fed` does."""
    while True:
        try:
            return pipeline.finish()
        except PodsNeededError:
            if pods is None:
                raise
            await pods.list()


async def _portions(
    pieces: AsyncIterator[bytes], longest: Callable[[], int]
) -> AsyncGenerator[bytes, None]:
    """Cut the pieces into portions. The event loop runs after each part of a piece.

    `longest` returns the most bytes that a sample's labels have now.
    """
    async for piece in pieces:
        for portion in portions(piece, longest()):
            yield portion
            if len(portion) < len(piece):
                await asyncio.sleep(0)


def _growth(longest: int, names: NamespaceLabels) -> int:
    """Bytes by which labels let a line grow, at most. The longest of a namespace have `longest`."""
    if not names.prefixes:
        return longest
    most = longest // _LEAST_LABEL  # labels of one namespace
    return sum(longest + most * len(prefix) for prefix in names.prefixes)


def _encoder(request: web.Request, response: web.StreamResponse) -> GzipEncoder | None:
    """The gzip encoder of a response's body, or None. Sets the headers that belong to it."""
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if request.version < HttpVersion11:
        response.force_close()  # HTTP/1.0 has no chunks: the end of the connection ends the body
    if not accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        return None
    response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    return GzipEncoder()
