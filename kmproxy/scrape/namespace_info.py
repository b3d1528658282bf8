"""`/metrics/namespaces`: one series for each namespace, made from the labels in memory.

Knows the path's query, statuses and headers. Must not know how labels are spelled,
nor where they come from. No request to a kubelet is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import parse_qs

from aiohttp import HttpVersion11, hdrs, web

from kmproxy.auth.middleware import DECISION
from kmproxy.config.recipe import read_selection
from kmproxy.config.samples import SelectionConfig
from kmproxy.content_coding import GzipEncoder, accepts_gzip
from kmproxy.errors import AccessError
from kmproxy.exposition.selection import QueryError, check_keys
from kmproxy.labels.namespace_info import CONTENT_TYPE, NamespaceInfoMap
from kmproxy.scrape.handler import ScrapeMetrics
from kmproxy.scrape.routes import NAMESPACES
from kmproxy.web.health import Readiness
from kmproxy.web.responses import TIMEOUT_HEADER, Handler, break_off, plain, scrape_budget


class NamespaceInfo:
    """Answers requests for the labels of all namespaces, or of the namespaces in the query.

    An answer that its client does not read is broken off at the end of the scrape time, which is
    at most `longest` seconds: it holds labels of all namespaces.
    """

    def __init__(
        self,
        info: NamespaceInfoMap,
        selection: SelectionConfig,
        *,
        readiness: Readiness,
        metrics: ScrapeMetrics,
        clock: Callable[[], float],
        longest: float,
    ) -> None:
        self._longest = longest
        self._info = info
        self._selection = read_selection(selection)
        self._readiness = readiness
        self._metrics = metrics
        self._clock = clock

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers of GET and HEAD requests, by path."""
        return {NAMESPACES: self._handle}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        began = self._clock()
        code = "gone"
        budget = min(scrape_budget(request.headers.get(TIMEOUT_HEADER)), self._longest)
        try:
            async with asyncio.timeout(budget):
                response = await self._answer(request)
            code = str(response.status)
        except TimeoutError:
            code = "broken"
            break_off(request)
            response = web.Response(status=499)
        except ConnectionResetError:  # the client left while we wrote
            response = web.Response(status=499)
        finally:
            self._metrics.count(NAMESPACES, code, self._clock() - began)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            pieces = await self._pieces(request)
        except AccessError as error:
            return plain(error.status, str(error))
        except QueryError as error:
            return plain(400, str(error))
        if isinstance(pieces, str):
            return plain(503, pieces)
        headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE, hdrs.VARY: hdrs.ACCEPT_ENCODING}
        encoder = None
        if accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            encoder = GzipEncoder()
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        response = web.StreamResponse(headers=headers)
        if request.version < HttpVersion11:
            response.force_close()  # HTTP/1.0 has no chunks
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            for piece in pieces:  # one at a time: a slow client keeps only one in memory
                if data := encoder.feed(piece) if encoder else piece:
                    await response.write(data)
            await response.write_eof(encoder.finish() if encoder else b"")
        return response

    async def _pieces(self, request: web.Request) -> Iterator[bytes] | str:
        """The pieces of the exposition, or a text that says why nothing can be served yet.

        Raises AccessError or QueryError.
        """
        query = parse_qs(request.raw_path.partition("?")[2], keep_blank_values=True)
        check_keys(query, "namespace")
        wanted = self._selection.narrow(query).wants_namespace
        problem = self._readiness.problem()
        if problem is None and not self._info.loaded:
            problem = "namespaces are not listed yet"  # a snapshot does not have their keys
        if problem:
            return problem
        admission = request.get(DECISION)
        if admission is None or admission.tenant is None:
            return self._info.exposition(wanted)
        # All namespaces are decided, wanted or not: no review may depend on namespaces that the
        # tenant does not see.
        spaces = self._info.existing()
        seen = await admission.tenant.sees(spaces, deadline=admission.deadline)
        return self._info.exposition(lambda space: seen.get(space, False) and wanted(space))
