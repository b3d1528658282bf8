"""Connections to servers: the check of their addresses, and the choice of the TLS context.

Knows aiohttp's connector and its few methods that decide this. Must not know
requests.
"""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp

from kmproxy.client.addresses import embedded
from kmproxy.client.pinning import Judge
from kmproxy.client.protocol import Responses
from kmproxy.errors import UpstreamError

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult
    from aiohttp.connector import Connection

    from kmproxy.client.addresses import AddressRule


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, with checks of addresses and of idle connections.

    aiohttp alone would take bytes that arrived early on an idle connection for the next response,
    and keep any number of them. With a rule for `addresses`, the connector connects only to
    addresses that the rule accepts, whatever a name resolves to. For a Judge it makes the handshake
    with the Judge's context.
    """

    def __init__(self, addresses: AddressRule | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(Responses, loop=self._loop)  # type: ignore[assignment] # a subclass
        self._addresses = addresses

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        return req.ssl.context if isinstance(req.ssl, Judge) else super()._get_ssl_context(req)

    def _update_proxy_auth_header_and_build_proxy_req(
        self, req: aiohttp.ClientRequest
    ) -> aiohttp.ClientRequest:
        to_proxy = super()._update_proxy_auth_header_and_build_proxy_req(req)
        if isinstance(req.ssl, Judge):
            to_proxy._ssl = req.ssl.verifying  # noqa: SLF001 - a proxy is not a kubelet
        return to_proxy

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> list[ResolveResult]:
        found = await super()._resolve_host(host, port, traces)
        rule = self._addresses
        if rule is None:
            return found
        problems = [rule.refusal(host, each["host"]) for each in found]
        if rule.server_place and port == rule.server_place[1]:
            own: frozenset[object] = frozenset()
            with contextlib.suppress(OSError):  # unresolved here: kmproxy cannot reach it either
                places = await super()._resolve_host(*rule.server_place)
                own = frozenset().union(*(embedded(each["host"]) for each in places))
            problems = [
                problem
                or ("the API server has this address" if own & embedded(each["host"]) else None)
                for each, problem in zip(found, problems, strict=True)
            ]
        good = [each for each, problem in zip(found, problems, strict=True) if problem is None]
        if not good:
            problem = (problems[0] if problems else None) or "the name has no address"
            raise UpstreamError("bad_address", rule.message(f"{host}:{port}", problem))
        return good

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """A connection on which no bytes have arrived yet. Raises ClientError."""
        connection = await super().connect(*args, **kwargs)
        if connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            raise aiohttp.ServerDisconnectedError  # as if the server had closed it
        return connection
