"""The nodes of the cluster, by name or all of them, as the API server knows them.

Knows Node objects and how long one is remembered. Must not know what is
fetched from a node. An address never comes from anywhere but the Node object.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kmproxy.apiserver import ApiServer
from kmproxy.discovery import ListedNode
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.permissions import NODES, NODES_LISTED, Permission, advice
from kmproxy.watch import LIST_ACCEPT, PAGE, parse_page

REMEMBERED = 60.0
"""Seconds for which a Node object that was found is not asked for again."""

MAX_REMEMBERED = 20_000

PATH = "/api/v1/nodes"

_ADDRESSES = ("InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "Hostname")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class _Address(msgspec.Struct):
    type: str
    address: str


class _Endpoint(msgspec.Struct):
    Port: int = 0


class _Endpoints(msgspec.Struct, rename="camel"):
    kubelet_endpoint: _Endpoint = msgspec.field(default_factory=_Endpoint)


class _Status(msgspec.Struct, rename="camel"):
    addresses: list[_Address] | None = None
    daemon_endpoints: _Endpoints = msgspec.field(default_factory=_Endpoints)


class _Node(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


_DECODER = msgspec.json.Decoder(_Node)


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and where its kubelet listens. `port` is None where nothing says."""

    name: str
    host: str
    port: int | None = None


class NodeDirectory:
    """Finds nodes by name."""

    def __init__(self, api: ApiServer, *, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._found: dict[str, tuple[Node, float]] = {}  # name -> node, when to ask again

    def __repr__(self) -> str:
        return f"<NodeDirectory {len(self._found)} remembered>"

    async def find(self, name: str) -> Node:
        """The node of this name.

        Raises UpstreamError, with status 404 where the API server knows none.
        """
        if not _NAME.fullmatch(name):
            raise UpstreamError("no_node", f"{name[:80]!r} is not a node's name", status=404)
        node, ask_at = self._found.get(name, (None, 0.0))
        if node is not None and self._clock() < ask_at:
            return node
        self._found.pop(name, None)
        node = await self._ask(name)
        if len(self._found) >= MAX_REMEMBERED:
            self._found.clear()
        self._found[name] = (node, self._clock() + REMEMBERED)
        return node

    async def first(self) -> Node:
        """A node to try, the first of a list. Raises UpstreamError, also if it may not be had."""
        try:
            body = await self._api.get(PATH, {"limit": "1"}, accept=LIST_ACCEPT)
            names = [item.name for item in parse_page(body).namespaces]
        except ApiError as error:
            message = f"no node to try: {error.summary}; name one by --node-name-or-ip"
            raise UpstreamError(error.reason, message) from error
        if not names:
            raise UpstreamError("no_node", "the cluster has no nodes")
        return await self.find(names[0])

    async def list_all(self) -> list[ListedNode]:
        """All nodes of the cluster, just their metadata. Raises UpstreamError."""
        params = {"limit": str(PAGE), "resourceVersion": "0"}
        nodes: list[ListedNode] = []
        while True:
            try:
                page = parse_page(await self._api.get(PATH, params, accept=LIST_ACCEPT))
                for some in page.slices():
                    nodes += [ListedNode(item.name, item.labels, item.annotations) for item in some]
                    await asyncio.sleep(0)  # all nodes can be on one page
            except ApiError as error:
                raise _explained(error, NODES_LISTED, "all nodes") from error
            if not page.token:
                return nodes
            params = {"limit": str(PAGE), "continue": page.token}

    async def _ask(self, name: str) -> Node:
        try:
            body = await self._api.get(f"{PATH}/{name}", {}, accept="application/json")
            status = _DECODER.decode(body).status
        except ApiError as error:
            if error.code == 404:
                message = f"the cluster has no node {name!r}"
                raise UpstreamError("no_node", message, status=404) from error
            raise _explained(error, NODES, f"node {name}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamError("garbage", f"the API server's node {name!r} is not one") from error
        addresses = {address.type: address.address for address in reversed(status.addresses or [])}
        host = next((addresses[kind] for kind in _ADDRESSES if addresses.get(kind)), None)
        if host is None:
            raise UpstreamError("no_address", f"node {name} has no address yet")
        return Node(name, host, status.daemon_endpoints.kubelet_endpoint.Port or None)


def _explained(error: ApiError, permission: Permission, what: str) -> UpstreamError:
    if error.code == 403:
        message = f"the API server forbids to {permission.verb} nodes: {advice(permission)}"
        return UpstreamError("forbidden", message)
    return UpstreamError(error.reason, f"the API server cannot tell {what}: {error.code}")
