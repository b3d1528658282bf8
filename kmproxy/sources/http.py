"""The metrics of an upstream: another exporter, by HTTP.

Knows one URL, and the meaning of a refusal. Must not know what is done with the bytes, nor which
client asked for them: no part of a client's request reaches an upstream. It is imported only if the
configuration has upstreams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import aiohttp

from kmproxy.client.upstream import Upstream
from kmproxy.config.upstreams import UpstreamConfig
from kmproxy.errors import UpstreamError
from kmproxy.sources.answer import (
    METRICS_TEXT,
    Exposition,
    Size,
    decoded,
    opened,
    require_form,
)

TEXT: Final = "text/plain;version=0.0.4"
OPENMETRICS: Final = f"application/openmetrics-text;version=1.0.0,{TEXT};q=0.5"
"""The requested formats, by `format` of the entry: never protobuf."""


class HttpSource:
    """Fetches from one exporter, with an upstream of its own.

    An answer has at most `most` bytes, decompressed.
    """

    def __init__(self, config: UpstreamConfig, upstream: Upstream, most: int) -> None:
        self._config = config
        self._upstream = upstream
        self._size = Size(upstream.name, most)

    @property
    def name(self) -> str:
        """The name of the upstream: the value of a label of kmproxy's own metrics."""
        return self._config.name

    def __repr__(self) -> str:
        return f"<HttpSource {self._config.name} at {self._config.place}>"

    @asynccontextmanager
    async def fetch(self) -> AsyncIterator[Exposition]:
        """Fetch the exposition. Raises UpstreamError."""
        accept = OPENMETRICS if self._config.openmetrics else TEXT
        async with self._upstream.get(
            self._config.url, accept=accept, accept_encoding="gzip"
        ) as response:
            if response.status != 200:
                raise UpstreamError(*self._refusal(response))
            require_form(response, METRICS_TEXT, self._upstream.name)
            answer = opened(self._upstream, response, self._size)
            async with aclosing(decoded(answer, self._size)) as pieces:
                yield Exposition(answer.content_type, pieces)

    def _refusal(self, response: aiohttp.ClientResponse) -> tuple[str, str]:
        """The reason and the message for a status other than 200."""
        name, status = self._upstream.name, response.status
        identifies = self._config.access.identifies
        if status == 401:
            why = "its credential is not accepted" if identifies else "it wants a credential"
            return "unauthorized", f"the {name} answered 401: {why}, see its entry in upstreams"
        if status == 403:
            why = "its credential has no right to it" if identifies else "it may want a credential"
            return "forbidden", f"the {name} answered 403: {why}, see its entry in upstreams"
        if status == 407:
            return "proxy", f"the proxy before the {name} wants a user and password (407)"
        if 300 <= status < 400:
            why = "not followed: write the URL that it leads to"
            return "redirect", f"the {name} answered with a redirect ({status}), {why}"
        hint = ": is the path of its url right?" if status == 404 else ""
        return "status", f"the {name} answered with HTTP status {status}{hint}"
