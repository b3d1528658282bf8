"""Requests to the API server: get, post and stream.

Knows the URL of the API server and how it refuses a request. Must not know what is listed or
watched, or when to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from kmproxy.client.upstream import Upstream
from kmproxy.errors import ApiError
from kmproxy.kube.identity import Identity
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.objects import ObjectMeta, parse_status
from kmproxy.kube.watch import LIST_ACCEPT

REQUEST_TIMEOUT = 60.0
"""Seconds without a byte after which a request other than a watch fails."""

MAX_BODY = 8 << 20
"""Bytes of the largest body that is held as a whole. It is one object, and etcd stores objects of
at most 1.5 MB."""

MAX_STATUS = 1 << 16
"""The most bytes that are read from the body of an error. A Status has a few hundred."""


class ApiServer:
    """Sends requests to the API server of an identity, with that identity."""

    def __init__(self, upstream: Upstream, identity: Identity) -> None:
        self._upstream = upstream
        self._identity = identity

    def __repr__(self) -> str:
        return f"<ApiServer {self._identity.server}>"

    @property
    def server(self) -> str:
        """The URL of the API server that is asked now. A changed kubeconfig can change it."""
        return self._identity.server

    async def get(self, path: str, params: Mapping[str, str], *, accept: str) -> bytearray:
        """Return the body of the response with status 200.

        Raises ApiError for a status that is an error, UpstreamError if no complete response comes,
        and CredentialError.
        """
        async with self.stream(path, params, accept=accept, silence=REQUEST_TIMEOUT) as pieces:
            return await _collect(pieces, MAX_BODY)

    async def objects(
        self, path: str, params: Mapping[str, str], reader: ListReader
    ) -> AsyncGenerator[list[ObjectMeta], None]:
        """Yield the objects of a list, or of one page of it, as they arrive.

        `reader` keeps the metadata of the list. Other tasks can run between two portions. Raises
        the errors of `get`.
        """
        async with self.stream(path, params, accept=LIST_ACCEPT, silence=REQUEST_TIMEOUT) as pieces:
            async for piece in pieces:
                for some in reader.feed(piece):
                    yield some
                    await asyncio.sleep(0)

    async def post(
        self, path: str, document: Mapping[str, Any], *, most: int = MAX_BODY
    ) -> bytearray:
        """Send a document. Return the body of the response, of at most `most` bytes.

        The status is 200 or 201. Raises the errors of `get`.
        """
        url = await self._url(path)
        body = msgspec.json.encode(document)
        async with self._upstream.post(url, body, silence=REQUEST_TIMEOUT) as response:
            return await _collect(await self._answer(response, REQUEST_TIMEOUT), most)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, accept: str, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the body of the response with status 200, to be read as it arrives.

        `silence` is the longest pause in seconds. Raises the errors of `get`; the first two also
        while the body is read.
        """
        url = await self._url(path)
        async with self._upstream.get(
            url, accept=accept, params=params, silence=silence
        ) as response:
            yield await self._answer(response, silence)

    async def _url(self, path: str) -> str:
        """Return the URL of a path. Raises CredentialError.

        The credential is read first, because a changed kubeconfig can name another API server. So
        its credential is never sent to the server that it named before.
        """
        await self._identity.authorization()
        return self._identity.server + path

    async def _answer(
        self, response: aiohttp.ClientResponse, silence: float
    ) -> AsyncIterator[bytes]:
        """The pieces of a response's body. Raises ApiError if its status is not 200 or 201."""
        pieces = self._upstream.pieces(response, silence=silence)
        if response.status not in {200, 201}:
            body = bytearray()
            async for piece in pieces:
                body += piece
                if len(body) > MAX_STATUS:  # an HTML page, perhaps: the status code is enough
                    break
            retry_after = response.headers.get("Retry-After")
            raise parse_status(response.status, bytes(body[:MAX_STATUS]), retry_after)
        return pieces


async def _collect(pieces: AsyncIterator[bytes], limit: int) -> bytearray:
    """Return the whole body. Raises ApiError if it has more than `limit` bytes."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            raise ApiError(200, "garbage", f"the API server's answer is over {limit} bytes")
    return body
