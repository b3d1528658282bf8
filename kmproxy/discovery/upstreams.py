"""`/sd/upstreams`: the upstreams of the configuration as targets.

Knows the document, and the part of a request that a response repeats: kmproxy's own address. Must
not know how an upstream is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from aiohttp import hdrs, web

from kmproxy.discovery.documents import json_list
from kmproxy.discovery.handler import CONTENT_TYPE, is_known, own_address, tagged
from kmproxy.discovery.target_labels import encode
from kmproxy.discovery.targets import DiscoveryMetrics
from kmproxy.exposition.selection import QueryError, check_keys
from kmproxy.web.responses import Handler, plain

UPSTREAMS: Final = "/sd/upstreams"


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """An upstream: its path on kmproxy, and its own HOST:PORT (`instance`)."""

    name: str
    path: str
    instance: str


@dataclass(frozen=True, slots=True)
class UpstreamDocument:
    """The JSON document of upstreams that are scraped at one address, each with its own path."""

    targets: Sequence[UpstreamTarget]
    address: str

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the document, always the same."""
        return json_list(self._groups())

    def _groups(self) -> Iterator[bytes]:
        for target in self.targets:
            labels = {
                "__metrics_path__": target.path,
                "instance": target.instance,
                "job": target.name,
            }
            yield encode({"targets": [self.address], "labels": labels})


class UpstreamDiscovery:
    """Answers requests for the list of upstreams, of which there is at least one."""

    def __init__(self, targets: Sequence[UpstreamTarget], metrics: DiscoveryMetrics) -> None:
        self._targets = targets
        self._metrics = metrics

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handler of GET and HEAD for the path."""
        return {UPSTREAMS: self._handle}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        response = self._answer(request)
        self._metrics.requests.labels(UPSTREAMS, str(response.status)).inc()
        return response

    def _answer(self, request: web.Request) -> web.Response:
        try:
            check_keys(parse_qs(request.raw_path.partition("?")[2], keep_blank_values=True))
        except QueryError as error:
            return plain(400, str(error))
        address = own_address(request.headers.get(hdrs.HOST, ""))
        if address is None:
            return plain(400, "the Host header is not HOST or HOST:PORT")
        document = UpstreamDocument(self._targets, address)
        headers, _ = tagged(document)
        if is_known(request, headers):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
        return web.Response(body=b"".join(document), headers=headers)
