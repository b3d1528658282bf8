"""The nodes of the cluster, by name or all of them, as the API server knows them.

Knows Node objects and how long one is remembered. Must not know what is
fetched from a node. An address never comes from anywhere but the Node object.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from kmproxy.allowances import Allowances
from kmproxy.client.addresses import NodeAddresses
from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.permissions import NODES, NODES_LISTED, Permission, advice
from kmproxy.kube.watch import PAGE
from kmproxy.telemetry import Telemetry

REMEMBERED = 60.0
"""Seconds for which a Node object that was found is not asked for again."""

KEPT = 3600.0
"""Seconds for which an address is used that the API server, failing, cannot confirm: it may have
become another node's, whose samples would then be taken for this one's."""

PATIENCE = 2.0
"""Seconds in which an address has to be confirmed before it is used as it was."""

RETRY = 5.0
"""Seconds after a failure in which no address that is known is asked for again."""

ABSENT_FOR = 10.0
"""Seconds for which a name is not asked for again that the API server knows no node of."""

MAX_REMEMBERED = 20_000

MAX_ABSENT = 1 << 20
"""Bytes of names of no node that are remembered, with what remembering each of them costs."""

_COST = 200
"""Bytes that remembering a name costs beside its own."""

MISSES = 256
"""Names of no node that one asker may have looked up at once, and then in `MISSES_IN` seconds."""

MISSES_IN = 30.0

PATH = "/api/v1/nodes"

_ADDRESSES = ("InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "Hostname")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_ANSWERS = {"no_node", "no_address", "bad_address", "forbidden"}
"""Reasons of errors that are what the API server has to say, rather than its failures."""

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
    """A node, and where its kubelet listens. `port` is None where nothing says.

    `uid` is that of its Node object, "" if that has none, and None for a node
    that is configured rather than found.
    """

    name: str
    host: str
    port: int | None = None
    uid: str | None = None


class _Absent:
    """Names that were found to be no node's, each for `ABSENT_FOR` seconds.

    They are bounded in bytes: the oldest go first.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._size = 0

    def __contains__(self, name: str) -> bool:
        return name in self._until

    def put(self, name: str, now: float) -> None:
        self._discard(name)
        self._until[name] = now + ABSENT_FOR
        self._size += len(name) + _COST
        while self._size > MAX_ABSENT:
            self._discard(next(iter(self._until)))

    def expire(self, now: float) -> None:
        while self._until and next(iter(self._until.values())) <= now:
            self._discard(next(iter(self._until)))

    def _discard(self, name: str) -> None:
        if self._until.pop(name, None) is not None:
            self._size -= len(name) + _COST


class NodeDirectory:
    """Finds nodes by name; while the API server fails, those that it told of before.

    A node is not found whose address the rule for `addresses` refuses; there is
    none where it is the API server that connects to nodes.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        addresses: NodeAddresses | None = None,
        clock: Callable[[], float],
        telemetry: Telemetry,
    ) -> None:
        self._api = api
        self._addresses = addresses
        self._clock = clock
        self._telemetry = telemetry
        self._found: dict[str, tuple[Node, float]] = {}  # name -> node, when that was confirmed
        self._absent = _Absent()
        self._misses = Allowances(burst=MISSES, interval=MISSES_IN / MISSES)
        self._retry_at = -math.inf  # while the API server fails: when to ask it again

    def __repr__(self) -> str:
        return f"<NodeDirectory {len(self._found)} remembered>"

    async def find(self, name: str, *, asker: str = "") -> Node:
        """The node of this name.

        Raises UpstreamError, with status 404 where the API server knows none, and
        503 where `asker` had too many names looked up that are no node's.
        """
        if not _NAME.fullmatch(name):
            raise UpstreamError("no_node", f"{name[:80]!r} is not a node's name", status=404)
        node, confirmed = self._found.get(name, (None, -math.inf))
        now = self._clock()
        if node is not None and now < confirmed + KEPT:
            if now < max(confirmed + REMEMBERED, self._retry_at):
                return node
            return await self._confirm(node)
        self._absent.expire(now)
        if name in self._absent:
            raise _no_node(name)
        if not self._misses.has_left(asker, now):
            message = f"more than {MISSES} names of no node were asked for: come again"
            raise UpstreamError("too_many", message, status=503)
        try:
            return await self._ask(name)
        except UpstreamError as error:
            if error.reason == "no_node":
                self._misses.take(asker, now)
            raise

    async def knows(self, name: str, *, asker: str = "") -> bool:
        """Whether there is such a node, or the API server fails to tell.

        It is no node either where the asker had too many names looked up.
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
        """A node to try, the first of a list. Raises UpstreamError, also if it may not be had."""
        try:
            reader = ListReader()
            async with aclosing(self._api.objects(PATH, {"limit": "1"}, reader)) as objects:
                names = [item.name async for some in objects for item in some]
            reader.finish()
        except ApiError as error:
            message = f"no node to try: {error.summary}; name one by --try-node"
            raise UpstreamError(error.reason, message) from error
        if not names:
            raise UpstreamError("no_node", "the cluster has no nodes")
        return await self.find(names[0])

    async def list_all(self) -> AsyncGenerator[list[Namespace], None]:
        """All nodes of the cluster, as they come, just their metadata. Raises UpstreamError."""
        params = {"limit": str(PAGE), "resourceVersion": "0"}
        while True:
            try:
                reader = ListReader()
                async with aclosing(self._api.objects(PATH, params, reader)) as objects:
                    async for some in objects:
                        yield some
                token = reader.finish().continue_
            except ApiError as error:
                raise _explained(error, NODES_LISTED, "all nodes") from error
            if not token:
                return
            params = {"limit": str(PAGE), "continue": token}

    async def _confirm(self, known: Node) -> Node:
        """The node as it is now, or as it is known if the API server fails to tell."""
        failing = self._retry_at > -math.inf
        if failing:
            self._retry_at = self._clock() + RETRY  # one asks, nobody else waits
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(known.name)
        except TimeoutError:
            reason = "timeout"
            why = f"the API server has not told of node {known.name} within {PATIENCE:g} s"
        except UpstreamError as error:
            if error.reason in _ANSWERS:
                raise
            reason, why = error.reason, str(error)
        if not failing:
            _log.warning("%s; the last known addresses of nodes stay in use", why)
        self._telemetry.upstream_failed("apiserver", reason)
        self._retry_at = self._clock() + RETRY
        return known

    async def _ask(self, name: str) -> Node:
        try:
            node = await self._get(name)
        except UpstreamError as error:
            if error.reason in _ANSWERS:
                self._found.pop(name, None)
                self._retry_at = -math.inf
            if error.reason == "no_node":
                self._absent.put(name, self._clock())
            raise
        if len(self._found) >= MAX_REMEMBERED:
            self._found.clear()
        self._found[name] = (node, self._clock())
        self._retry_at = -math.inf
        return node

    async def _get(self, name: str) -> Node:
        try:
            body = await self._api.get(f"{PATH}/{name}", {}, accept="application/json")
            node = _DECODER.decode(body)
        except ApiError as error:
            if error.code == 404:
                raise _no_node(name) from error
            raise _explained(error, NODES, f"node {name}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamError("garbage", f"the API server's node {name!r} is not one") from error
        status = node.status
        addresses = {address.type: address.address for address in reversed(status.addresses or [])}
        host = next((addresses[kind] for kind in _ADDRESSES if addresses.get(kind)), None)
        if host is None:
            raise UpstreamError("no_address", f"node {name} has no address yet")
        port = status.daemon_endpoints.kubelet_endpoint.Port or None
        if self._addresses is not None and (problem := self._addresses.problem(host, port)):
            message = f"node {name} is not asked at the address that it names: {problem}"
            raise UpstreamError("bad_address", message)
        uid = node.metadata.uid
        return Node(name, host, port, uid if _UID.fullmatch(uid) else "")


def _no_node(name: str) -> UpstreamError:
    return UpstreamError("no_node", f"the cluster has no node {name!r}", status=404)


def _explained(error: ApiError, permission: Permission, what: str) -> UpstreamError:
    if error.code == 403:
        message = f"the API server forbids to {permission.verb} nodes: {advice(permission)}"
        return UpstreamError("forbidden", message)
    return UpstreamError(error.reason, f"the API server cannot tell {what}: {error.code}")
