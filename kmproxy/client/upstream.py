"""Sends requests to a kubelet or the API server, and turns their failures into UpstreamError.

Knows aiohttp's client and its exceptions, which are handled here. Must not know
paths, bodies or the use of a response. Cookies are not kept. Credentials are not
sent over plain HTTP, and not after a redirect to another host or port.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from multidict import CIMultiDict

from kmproxy.client.credentials import Credential
from kmproxy.client.failures import connection_failure
from kmproxy.client.pinning import CertificateRefusedError, Pinning
from kmproxy.client.pins import Peer
from kmproxy.client.session import Way
from kmproxy.client.tls import TlsContext, plain_name
from kmproxy.errors import UpstreamError

if TYPE_CHECKING:
    from kmproxy.config.proxies import Headers, Proxy

    Find = Callable[[str], Proxy | None]
    """Returns the proxy for a URL, or None."""

CONNECT = 8.0
"""Seconds that a connection to the API server may take, with its handshake. A lost SYN is sent
again after 1, 3 and 7 s. The next SYN would follow only at 15 s, so the attempt ends before."""

TICK = 1.0
"""Seconds between two checks whether the connection of a response is still open."""

MAX_REDIRECTS = 5

_PROXY_LOGIN = "proxy-authorization"

_Tls = ssl.SSLContext | bool
"""The TLS context of a connection. False means plain HTTP."""


class Upstream:
    """Sends requests to servers of one kind, in one way, with one identity.

    `name` names the server in errors, for example "kubelet" or "API server".
    `server_name` returns the name that the certificate must contain, or None for
    the host of the URL. `headers` are sent with the credential, over TLS only.

    `elsewhere` is the TLS context for other hosts and ports. With it, the upstream
    follows redirects of a GET: to the same host and port with the identity, to
    any other without it, to plain http never. With `pinning`, a peer's pinned
    certificate is accepted, too. Requests to `listed` peers use the session
    `nodes`.

    A request may be sent twice or more. If the server has closed a kept-alive
    connection, the request is sent again on the next connection, at last on a new
    one.
    """

    def __init__(  # noqa: PLR0913 - each is a separate option
        self,
        name: str,
        session: aiohttp.ClientSession,
        credential: Credential | None,
        tls: TlsContext,
        *,
        server_name: Callable[[], str | None] | None = None,
        proxy: Find | None = None,
        headers: Headers = (),
        elsewhere: TlsContext | None = None,
        pinning: Pinning | None = None,
        nodes: aiohttp.ClientSession | None = None,
    ) -> None:
        self.name = name
        self._session = session
        self._credential = credential
        self._tls = tls
        self._server_name = server_name
        self._proxy = proxy
        self._headers = headers
        self._elsewhere = elsewhere
        self._pinning = pinning
        self._nodes = nodes or session

    def __repr__(self) -> str:
        return f"<Upstream {self.name} as {self._credential!r}>"

    def get(
        self,
        url: str,
        *,
        accept: str,
        accept_encoding: str = "identity",
        params: Mapping[str, str] | None = None,
        span: tuple[int, int] | None = None,
        silence: float | None = None,
        peer: Peer | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a GET. After a 401, read the token again and send the GET once more.

        Yields the response, of any status. Its body is not read yet. The response
        has to begin within `silence` seconds. `span` are the first and the last
        byte to ask for. Raises UpstreamError.
        """
        headers = {"Accept": accept, "Accept-Encoding": accept_encoding}
        if span:
            headers["Range"] = f"bytes={span[0]}-{span[1]}"
        return self._request("GET", url, headers, params=params, silence=silence, peer=peer)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a POST for a response in JSON. Otherwise it is like `get`.

        `authorization` is sent unchanged if the upstream has no credential. Further
        `headers` are no secrets: they are sent over plain HTTP, too.
        """
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
            **(headers or {}),
        }
        if authorization:
            sent["Authorization"] = authorization
        return self._request("POST", url, sent, body=body, silence=silence)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        silence: float | None = None,
        peer: Peer | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        ours = True
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT if silence else None)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(
                method, url, headers, peer, ours=ours, silence=silence, timeout=limits,
                params=params, data=body,
            )  # fmt: skip
            if self._elsewhere is None or method != "GET" or not _is_redirect(response):
                break
            response.close()
            onward = self._redirected(url, response.headers["Location"])
            ours = ours and _origin(onward) == _origin(url)
            url, params = onward, None
        else:
            message = f"the {self.name} redirects more than {MAX_REDIRECTS} times"
            raise UpstreamError("redirect", message)
        try:
            yield response
        finally:
            response.close()  # the connection is kept only if the body was read to its end

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        peer: Peer | None,
        *,
        ours: bool,
        silence: float | None,
        **options: Any,
    ) -> aiohttp.ClientResponse:
        """Send one request, and send it again after a 401. `ours`: the URL may get the identity."""
        secure = url[:6].lower() == "https:"
        credential = self._credential if secure and ours else None
        sent = CIMultiDict(headers)
        if secure and ours:
            sent.extend((name, value.reveal()) for name, value in self._headers)
        given, host = sent, _dotted_host(url)
        if host:  # aiohttp would leave out the dot. Go sends it
            given["Host"] = urlsplit(url).netloc
        for anew in (False, True):
            authorization = await credential.authorization(anew=anew) if credential else None
            sent = given.copy()
            if ours and self._credential is not None:
                sent.extend(_revealed(self._credential.headers))
            if authorization:
                sent["Authorization"] = authorization
            # After the credential: reading it may have changed the sources of the context.
            context = self._tls if ours or self._elsewhere is None else self._elsewhere
            name = self._server_name() if self._server_name and ours else None
            name = plain_name(name or host) or None
            proxy = self._proxy(url) if self._proxy else None
            sent.extend(_login(proxy, secure=secure))
            try:
                # aiohttp's sock_connect and sock_read do not cover a proxy's response.
                async with asyncio.timeout(silence):
                    response = await self._judged(
                        peer if ours else None,
                        # The proxy's address is configured, and the proxy resolves names itself.
                        self._nodes if peer and peer.listed and not proxy else self._session,
                        method,
                        url,
                        headers=sent,
                        allow_redirects=False,
                        ssl=context.current() if secure else False,
                        server_hostname=name if secure else None,
                        proxy=proxy.url if proxy else None,
                        proxy_headers=_revealed(proxy.headers) if proxy else None,
                        **options,
                    )
            except aiohttp.ClientConnectorDNSError as error:  # with a proxy: the proxy's name
                raise self._unresolved(error.host, proxied=proxy is not None) from error
            except (aiohttp.ClientError, OSError) as error:
                raise connection_failure(self.name, error) from error
            except UnicodeError as error:  # a label of the host name is empty or too long
                message = f"the {self.name}'s host name is not valid"
                raise UpstreamError("unresolved", message) from error
            if response.status != 401 or credential is None or anew:
                break  # the second try helps without a token, too: it may renew the certificate
            response.close()
        return response

    async def _judged(
        self, peer: Peer | None, session: aiohttp.ClientSession, method: str, url: str,
        *, ssl: _Tls, **options: Any,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """The response of a server whose certificate a CA verifies, or with pins, is pinned.

        No part of the request is sent before that check. Raises UpstreamError if a
        pin refuses the certificate.
        """
        pinning = self._pinning
        if pinning is None or peer is None or isinstance(ssl, bool):
            return await self._asked(session, method, url, ssl=ssl, **options)
        refused: CertificateRefusedError | None = None
        failure: Exception | None = None
        for judge in pinning.judges(peer, ssl):
            try:
                return await self._asked(session, method, url, ssl=judge, **options)
            except CertificateRefusedError as error:
                refused = error
            except aiohttp.ClientConnectorCertificateError as error:
                failure = error
            except (aiohttp.ClientError, OSError) as error:
                # Python 3.11.7 and 3.12.1 lose the error of a handshake through an HTTPS proxy.
                if refused is None and options.get("proxy") is None:
                    raise
                failure = error
        if refused is not None:
            raise pinning.refusal(peer, refused.digest) from refused
        assert failure is not None  # noqa: S101 - a try without a response sets it
        raise failure

    async def _asked(
        self, session: aiohttp.ClientSession, method: str, url: str, **options: Any
    ) -> aiohttp.ClientResponse:
        """The response, on the first connection that the server has not closed."""
        while True:
            way = Way()
            try:
                return await session.request(method, url, trace_request_ctx=way, **options)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not way.reused:
                    raise

    def _redirected(self, url: str, location: str) -> str:
        """The URL that a redirect leads to. Raises UpstreamError if it must not be followed."""
        try:
            onward = urljoin(url, location)
            parts = urlsplit(onward)
            good = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.username is not None:
            message = (
                f"the {self.name} redirects to a URL that is not https; kmproxy does not follow"
            )
            raise UpstreamError("redirect", message)
        return onward

    def pieces(
        self, response: aiohttp.ClientResponse, *, silence: float | None = None
    ) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive, to its end.

        Raises UpstreamError if the body is cut short or pauses for over `silence`
        seconds.
        """
        return _Pieces(self.name, response, silence)

    def _unresolved(self, host: str, *, proxied: bool) -> UpstreamError:
        name = f"proxy before the {self.name}" if proxied else self.name
        message = f"the {name}'s host name {host} is not known"
        return UpstreamError("proxy" if proxied else "unresolved", message)


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces(AsyncIterator[bytes]):
    """Reads the body of a response. An object costs less than an async generator."""

    name: str
    response: aiohttp.ClientResponse
    silence: float | None

    async def __anext__(self) -> bytes:
        content = self.response.content
        try:
            # Usually the bytes are there, and no timer is needed.
            if piece := content.read_nowait() or await self._received(content):
                return piece
        except (aiohttp.ClientError, OSError) as error:
            raise connection_failure(self.name, error) from error
        raise StopAsyncIteration

    async def _received(self, content: aiohttp.StreamReader) -> bytes:
        """Wait for the next piece, empty at the end. Raises TimeoutError after `silence`.

        If a body's chunks have wrong framing, aiohttp closes the connection, stops its
        own timer and does not wake the reader, which would wait for ever. So this
        function has its own timeout, and checks the connection every `TICK` seconds.
        Raises ClientPayloadError if the connection is closed.
        """
        if content.is_eof():
            return b""
        async with asyncio.timeout(self.silence):
            while content.is_eof() or content.exception() or _is_open(self.response):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        return await content.readany()
        raise aiohttp.ClientPayloadError


def _is_open(response: aiohttp.ClientResponse) -> bool:
    connection = response.connection
    return connection is not None and connection.transport is not None


def _dotted_host(url: str) -> str:
    """The host of a URL if its name ends with a dot, else empty: aiohttp handles other names."""
    host = urlsplit(url).hostname or ""
    return host if host.endswith(".") else ""


def _is_redirect(response: aiohttp.ClientResponse) -> bool:
    return response.status in {301, 302, 303, 307, 308} and "Location" in response.headers


def _origin(url: str) -> tuple[str, str | None, int]:
    """Scheme, host and port: a credential is sent to one origin only."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or 443


def _login(proxy: Proxy | None, *, secure: bool) -> CIMultiDict[str]:
    """The user and password of a proxy for a request without TLS: no CONNECT carries them."""
    if proxy is None or secure:
        return CIMultiDict()
    headers = ((name, value) for name, value in proxy.headers if name.lower() == _PROXY_LOGIN)
    return _revealed(tuple(headers))


def _revealed(headers: Headers) -> CIMultiDict[str]:
    return CIMultiDict((name, value.reveal()) for name, value in headers)
