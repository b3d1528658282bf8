"""Gets, posts and streams against the API server.

Knows its URL and how it says no. Must not know what is listed or watched, nor
when to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from kmproxy.client.upstream import Upstream
from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError
from kmproxy.kube.identity import Identity
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.watch import LIST_ACCEPT, parse_status

REQUEST_TIMEOUT = 60.0
"""Seconds of silence after which a plain request is given up."""

MAX_BODY = 8 << 20
"""Bytes of the largest answer that is held as a whole: one object, of which etcd takes 1.5 MB."""

MAX_STATUS = 1 << 16
"""Bytes of an error's body that are read; a Status has a few hundred."""


class ApiServer:
    """The API server that an identity belongs to."""

    def __init__(self, upstream: Upstream, identity: Identity) -> None:
        self._upstream = upstream
        self._identity = identity

    def __repr__(self) -> str:
        return f"<ApiServer {self._identity.server}>"

    @property
    def server(self) -> str:
        """The URL of the one that is asked now: a kubeconfig can lead elsewhere than before."""
        return self._identity.server

    async def get(self, path: str, params: Mapping[str, str], *, accept: str) -> bytearray:
        """The body of a 200.

        Raises ApiError for any other status, UpstreamError for none, CredentialError.
        """
        async with self.stream(path, params, accept=accept, silence=REQUEST_TIMEOUT) as pieces:
            return await _collect(pieces, MAX_BODY)

    async def objects(
        self, path: str, params: Mapping[str, str], reader: ListReader
    ) -> AsyncGenerator[list[Namespace], None]:
        """The objects of a list, or of one page of it, as they come; `reader` learns the rest.

        Other tasks have their turn in between. Raises as `get` does.
        """
        async with self.stream(path, params, accept=LIST_ACCEPT, silence=REQUEST_TIMEOUT) as pieces:
            async for piece in pieces:
                for some in reader.feed(piece):
                    yield some
                    await asyncio.sleep(0)

    async def post(
        self, path: str, document: Mapping[str, Any], *, most: int = MAX_BODY
    ) -> bytearray:
        """The body of the 200 or 201 that a document is answered with, of at most `most` bytes.

        Raises as `get` does.
        """
        url = await self._url(path)
        body = msgspec.json.encode(document)
        async with (
            self._upstream.post(url, body, silence=REQUEST_TIMEOUT) as response,
            self._answer(response, REQUEST_TIMEOUT) as pieces,
        ):
            return await _collect(pieces, most)

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, accept: str, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a 200 as it comes; `silence` is the longest pause in seconds.

        Raises ApiError and UpstreamError, while the body is read too.
        """
        url = await self._url(path)
        async with (
            self._upstream.get(url, accept=accept, params=params, silence=silence) as response,
            self._answer(response, silence) as pieces,
        ):
            yield pieces

    async def _url(self, path: str) -> str:
        """Where to ask. Raises CredentialError.

        A kubeconfig can lead elsewhere than before, and is read with its
        credential: that is not sent to the server of before.
        """
        await self._identity.authorization()
        return self._identity.server + path

    @asynccontextmanager
    async def _answer(
        self, response: aiohttp.ClientResponse, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of an answer that is none of an error."""
        async with aclosing(self._upstream.pieces(response, silence=silence)) as pieces:
            if response.status not in {200, 201}:
                body = bytearray()
                async for piece in pieces:
                    body += piece
                    if len(body) > MAX_STATUS:  # a page for people, say: the status says enough
                        break
                retry_after = response.headers.get("Retry-After")
                raise parse_status(response.status, bytes(body[:MAX_STATUS]), retry_after)
            yield pieces


async def _collect(pieces: AsyncIterator[bytes], limit: int) -> bytearray:
    """The whole body. Raises ApiError past `limit` bytes."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            raise ApiError(200, "garbage", f"the API server's answer is over {limit} bytes")
    return body
