"""The nodes of the cluster, one by name or all of them, from the API server.

Knows Node objects and how long each is remembered. Must not know what is fetched from a node. The
address of a node comes only from its Node object.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from kmproxy.allowances import Allowances
from kmproxy.bounded_cache import ENTRY, BoundedCache
from kmproxy.client.addresses import NodeAddresses
from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.objects import ObjectMeta
from kmproxy.kube.permissions import NODES, NODES_LISTED, Permission, advice
from kmproxy.kube.watch import PAGE
from kmproxy.telemetry import UpstreamErrors

REMEMBERED = 60.0
"""Seconds for which a Node object that was found is not requested again."""

KEPT = 3600.0
"""Seconds for which an address is used while the API server fails to confirm it. After a longer
time the address may belong to another node, whose samples would be taken for this node's."""

PATIENCE = 2.0
"""Seconds within which the API server has to confirm an address. After that the known address is
used."""

RETRY = 5.0
"""Seconds after a failure of the API server for which no known address is requested again."""

ABSENT_FOR = 10.0
"""Seconds for which a name is not requested again after the API server found no node for it."""

MAX_REMEMBERED = 20_000
"""Nodes that are remembered. The one that was not looked up for the longest time makes room."""

MAX_REMEMBERED_BYTES = 16 << 20
"""Bytes that all remembered nodes may take together."""

MAX_ABSENT = 1 << 20
"""Bytes that all remembered names without a node may take together."""

MISSES = 256
"""Names without a node that one asker may have looked up at once, and then in each `MISSES_IN`
seconds."""

MISSES_IN = 30.0

PATH = "/api/v1/nodes"

_ADDRESSES = ("InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "Hostname")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_ANSWERS = {"no_node", "no_address", "bad_address", "forbidden"}
"""Reasons of errors that are answers of a working API server, not failures of it."""

_log = logging.getLogger(__package__)


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


class _Metadata(msgspec.Struct):
    uid: str = ""


class _Node(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    status: _Status = msgspec.field(default_factory=_Status)


_DECODER = msgspec.json.Decoder(_Node)


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and where its kubelet listens. `port` is None if no port is known.

    `uid` is the uid of the Node object. It is "" if the object has no valid uid, and None if the
    node comes from the configuration and not from a Node object.
    """

    name: str
    host: str
    port: int | None = None
    uid: str | None = None

    @property
    def size(self) -> int:
        """The bytes of memory that a remembered node takes, approximately."""
        return 2 * ENTRY + len(self.name) + len(self.host) + len(self.uid or "")


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class NodeDirectory:
    """Finds nodes by name. While the API server fails, it finds only nodes that it found before.

    `addresses` is the rule for addresses. If the rule refuses the address of a node, the node
    counts as not found. It is None if the API server itself connects to the nodes.
    """

    api: ApiServer
    addresses: NodeAddresses | None = None
    clock: Callable[[], float]
    errors: UpstreamErrors
    _found: BoundedCache[str, tuple[Node, float]] = field(  # with the time of confirmation
        init=False,
        default_factory=lambda: BoundedCache(
            MAX_REMEMBERED, size=MAX_REMEMBERED_BYTES, weigh=lambda _, found: found[0].size
        ),
    )
    _absent: BoundedCache[str, None] = field(
        init=False,
        default_factory=lambda: BoundedCache(
            MAX_ABSENT // ENTRY, size=MAX_ABSENT, weigh=lambda name, _: ENTRY + len(name)
        ),
    )
    _misses: Allowances = field(
        init=False, default_factory=lambda: Allowances(burst=MISSES, interval=MISSES_IN / MISSES)
    )
    _retry_at: float = field(init=False, default=-math.inf)
    """The time of the next request while the API server fails."""

    def __repr__(self) -> str:
        return f"<NodeDirectory {len(self._found)} remembered>"

    async def find(self, name: str, *, asker: str = "") -> Node:
        """Return the node with this name, for `asker`.

        Raises UpstreamError. Its status is 404 if the API server has no such node, and 503 if
        `asker` had too many names looked up for which no node exists.
        """
        if not _NAME.fullmatch(name):
            raise UpstreamError("no_node", f"{name[:80]!r} is not the name of a node", status=404)
        now = self.clock()
        if (found := self._found.get(name, now)) is not None:
            node, confirmed = found
            if now < max(confirmed + REMEMBERED, self._retry_at):
                return node
            return await self._confirm(node)
        self._absent.expire(now)
        if name in self._absent:
            raise _no_node(name)
        if not self._misses.has_left(asker, now):
            message = f"over {MISSES} requests named unknown nodes: try again later"
            raise UpstreamError("too_many", message, status=503)
        try:
            return await self._ask(name)
        except UpstreamError as error:
            if error.reason == "no_node":
                self._misses.take(asker, now)
            raise

    async def knows(self, name: str, *, asker: str = "") -> bool:
        """Tell whether a node has this name. True also if the API server fails to answer.

        False also if `asker` had too many names looked up for which no node exists.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self.find(name, asker=asker)
        except (TimeoutError, CredentialError):
            return True
        except UpstreamError as error:
            return error.reason not in {"no_node", "too_many"}
        return True

    async def first(self) -> Node:
        """Return the first node of a list, for a trial. Raises UpstreamError, also if forbidden."""
        try:
            reader = ListReader()
            async with aclosing(self.api.objects(PATH, {"limit": "1"}, reader)) as objects:
                names = [item.name async for some in objects for item in some]
            reader.finish()
        except ApiError as error:
            message = f"no node to try: {error.summary}; name a node with --try-node"
            raise UpstreamError(error.reason, message) from error
        if not names:
            raise UpstreamError("no_node", "the cluster has no nodes")
        return await self.find(names[0])

    async def list_all(self) -> AsyncGenerator[list[ObjectMeta], None]:
        """Yield the metadata of all nodes of the cluster, as it arrives. Raises UpstreamError."""
        params = {"limit": str(PAGE), "resourceVersion": "0"}
        while True:
            try:
                reader = ListReader()
                async with aclosing(self.api.objects(PATH, params, reader)) as objects:
                    async for some in objects:
                        yield some
                token = reader.finish().continue_
            except ApiError as error:
                raise _explained(error, NODES_LISTED, "all nodes") from error
            if not token:
                return
            params = {"limit": str(PAGE), "continue": token}

    async def _confirm(self, known: Node) -> Node:
        """Look up a known node again. If the API server fails, return the known node."""
        failing = self._retry_at > -math.inf
        if failing:
            self._retry_at = self.clock() + RETRY  # one request asks, and the others do not wait
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(known.name)
        except TimeoutError:
            reason = "timeout"
            why = f"the API server has not returned node {known.name} within {PATIENCE:g} s"
        except UpstreamError as error:
            if error.reason in _ANSWERS:
                raise
            reason, why = error.reason, str(error)
        if not failing:
            _log.warning("%s; the last known addresses of nodes stay in use", why)
        self.errors.count("apiserver", reason)
        self._retry_at = self.clock() + RETRY
        return known

    async def _ask(self, name: str) -> Node:
        try:
            node = await self._get(name)
        except UpstreamError as error:
            if error.reason in _ANSWERS:
                self._found.drop(name)
                self._retry_at = -math.inf
            if error.reason == "no_node":
                self._absent.put(name, None, self.clock() + ABSENT_FOR)
            raise
        now = self.clock()
        self._found.put(name, (node, now), now + KEPT)
        self._retry_at = -math.inf
        return node

    async def _get(self, name: str) -> Node:
        try:
            body = await self.api.get(f"{PATH}/{name}", {}, accept="application/json")
            node = _DECODER.decode(body)
        except ApiError as error:
            if error.code == 404:
                raise _no_node(name) from error
            raise _explained(error, NODES, f"node {name}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamError(
                "garbage", f"the API server's answer for node {name!r} is not a Node"
            ) from error
        status = node.status
        addresses = {address.type: address.address for address in reversed(status.addresses or [])}
        host = next((addresses[kind] for kind in _ADDRESSES if addresses.get(kind)), None)
        if host is None:
            raise UpstreamError("no_address", f"node {name} has no address yet")
        port = status.daemon_endpoints.kubelet_endpoint.Port or None
        if self.addresses is not None and (problem := self.addresses.problem(host, port)):
            why = f"the address in its Node object: {problem}"
            message = f"kmproxy does not connect to node {name} at {why}"
            raise UpstreamError("bad_address", message)
        uid = node.metadata.uid
        return Node(name, host, port, uid if _UID.fullmatch(uid) else "")


def _no_node(name: str) -> UpstreamError:
    return UpstreamError("no_node", f"the cluster has no node {name!r}", status=404)


def _explained(error: ApiError, permission: Permission, what: str) -> UpstreamError:
    if error.code == 403:
        message = f"the API server forbids to {permission.verb} nodes: {advice(permission)}"
        return UpstreamError("forbidden", message)
    return UpstreamError(error.reason, f"the API server failed to return {what}: {error.code}")
