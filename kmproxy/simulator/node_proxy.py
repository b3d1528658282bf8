"""The node proxy of a simulated API server: passes requests on to a node's kubelet.

Knows which parts of a request are passed on. The API server authorizes a request before. Must not
know watches, stores, or anything of the proxy under test.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from kmproxy.simulator.answers import headers
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.statuses import StatusError, not_found
from kmproxy.simulator.wire import end_to_end, relay


class NodeProxy:
    """The node proxy to the kubelets. `kubelets` is read at each request.

    `context` is for connections to kubelets. Its client certificate replaces the caller's
    credential.
    """

    def __init__(self, kubelets: Mapping[str, SimKubelet], context: ssl.SSLContext) -> None:
        self._kubelets = kubelets
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<NodeProxy to {', '.join(self._kubelets)}>"

    async def start(self) -> None:
        """Open the session for requests to kubelets."""
        connector = aiohttp.TCPConnector(ssl=self._context)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def stop(self) -> None:
        """Close the session, and with it all requests under way."""
        if self._session is not None:
            await self._session.close()

    async def serve(self, request: web.Request, node: str, path: str) -> web.StreamResponse:
        """Pass a request on, and its response back.

        Raises StatusError: 404 for an unknown node, 503 for a kubelet that cannot be reached.
        """
        name = node.removeprefix("https:").partition(":")[0]
        kubelet = self._kubelets.get(name)
        if kubelet is None or self._session is None:
            raise not_found("nodes", name)
        passed = {
            key: value
            for key, value in end_to_end(request.headers).items()
            if key.title() != "Authorization"
        }
        query = f"?{raw}" if (raw := request.rel_url.raw_query_string) else ""
        try:
            answer = await self._session.request(
                request.method,
                f"{kubelet.url}{path}{query}",
                headers=passed,
                data=await request.read() or None,
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        except aiohttp.ClientError as error:
            raise StatusError(503, f"error trying to reach service: {error}") from error
        async with answer:
            return await relay(request, answer, headers({}))
