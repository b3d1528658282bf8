"""One request to a kubelet or the API server, and what can go wrong with it.

Knows aiohttp's client and its exceptions, which end here. Must not know paths,
bodies or what an answer is for. Redirects are not followed, cookies not kept,
credentials not sent over plain HTTP.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp

from kmproxy import __version__
from kmproxy.errors import UpstreamError
from kmproxy.identity import Identity
from kmproxy.tls import TlsContext

KEEP_ALIVE = 80.0
"""Seconds an idle connection is kept: over a scrape interval, under a kubelet's own 90."""

PIECE = 1 << 16

_SELF_SIGNED = {18, 19, 20, 21}  # X509_V_ERR_*: no chain to a CA that is trusted
_NAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_EXPIRED = 10


def open_session() -> aiohttp.ClientSession:
    """The session for all upstreams; its owner closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"kmproxy/{__version__}"},
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=PIECE,
        trust_env=False,
    )


class Upstream:
    """A server of one kind, reached in one way, as one identity.

    `name` is how errors call it: "kubelet" or "API server".
    """

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        identity: Identity,
        tls: TlsContext,
        *,
        server_name: str | None = None,
        proxied: bool = False,
    ) -> None:
        self.name = name
        self._session = session
        self._identity = identity
        self._tls = tls
        self._server_name = server_name
        self._proxied = proxied

    def __repr__(self) -> str:
        return f"<Upstream {self.name} as {self._identity!r}>"

    def get(
        self,
        url: str,
        *,
        accept: str,
        accept_encoding: str = "identity",
        params: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """GET, and once again with a token read anew after a 401.

        Yields the answer, whatever its status, its body still to be read.
        `silence` is the time in seconds that may pass between two reads.
        Raises UpstreamError.
        """
        headers = {"Accept": accept, "Accept-Encoding": accept_encoding}
        return self._request("GET", url, headers, params=params, silence=silence)

    def post(
        self, url: str, body: bytes, *, silence: float | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """POST of JSON for an answer in JSON; the rest as with `get`."""
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        return self._request("POST", url, headers, body=body, silence=silence)

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
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=silence, sock_read=silence)
        secure = url.startswith("https:")
        for anew in (False, True):
            authorization = await self._identity.authorization(anew=anew) if secure else None
            tls = self._tls.current() if secure else False  # after what may have read a new one
            if authorization:
                headers["Authorization"] = authorization
            try:
                response = await self._session.request(
                    method,
                    url,
                    params=params,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    ssl=tls,
                    server_hostname=self._server_name if secure else None,
                    proxy=self._identity.proxy if self._proxied else None,
                    timeout=timeout,
                )
            except (aiohttp.ClientError, OSError) as error:
                raise self._failure(error) from error
            if response.status == 401 and authorization and not anew:
                response.close()
                continue
            break
        try:
            yield response
        finally:
            response.close()  # kept alive only if the body was read to its end

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it comes, to its end. Raises UpstreamError if it is cut short."""
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UpstreamError:
        """What a failure of the connection means: the one place where aiohttp's are read."""
        name = self.name
        match error:
            case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as wrong):
                return UpstreamError("tls", certificate_message(name, wrong))
            case aiohttp.ClientConnectorSSLError():
                hint = "does it speak TLS there, and is the port right?"
                return UpstreamError("tls", f"the {name}'s TLS handshake failed: {hint}")
            case aiohttp.ClientConnectorDNSError(host=host):
                return UpstreamError("unresolved", f"the {name}'s host name {host} is not known")
            case TimeoutError():
                return UpstreamError("timeout", f"the {name} fell silent", status=504)
            case aiohttp.ClientConnectorError(host=host, port=port, os_error=os_error):
                reason = "refused" if os_error.errno == errno.ECONNREFUSED else "unreachable"
                what = os.strerror(os_error.errno).lower() if os_error.errno else "no connection"
                message = f"the {name} at {host}:{port} cannot be reached: {what}"
                return UpstreamError(reason, message)
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
                return UpstreamError("disconnected", f"the {name} closed the connection")
            case aiohttp.ClientPayloadError():
                return UpstreamError("truncated", f"the {name}'s answer was cut short")
            case _:
                return UpstreamError("protocol", f"the {name}'s answer is not HTTP as it should be")


def is_untrusted(error: ssl.SSLError) -> bool:
    """Whether a certificate was refused because no CA that is trusted signed it."""
    return getattr(error, "verify_code", 0) in _SELF_SIGNED


def is_name_mismatch(error: ssl.SSLError) -> bool:
    """Whether a certificate was refused because it is for other names."""
    return getattr(error, "verify_code", 0) in _NAME_MISMATCH


def certificate_message(name: str, error: ssl.SSLError) -> str:
    """Why the certificate of a "kubelet" or "API server" was refused, and what to do."""
    why = getattr(error, "verify_message", None) or "it cannot be verified"
    message = f"the {name}'s certificate does not verify: {why.rstrip('.')}"
    if name != "kubelet":
        return f"{message}; check the CA of the kubeconfig or service account"
    if getattr(error, "verify_code", 0) == _EXPIRED:
        return f"{message}; renew it, or give --kubelet-insecure-tls"
    if is_name_mismatch(error):
        return f"{message}; give --kubelet-server-name, or --kubelet-insecure-tls"
    if is_untrusted(error):
        return f"{message}; give its CA by --kubelet-ca-file, or --kubelet-insecure-tls"
    return f"{message}; see --kubelet-ca-file and --kubelet-insecure-tls"
