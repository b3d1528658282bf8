"""A node's metrics and pods, from its kubelet or through the API server's node proxy.

Knows the four endpoints and /pods, both ways to reach them, and the meaning of a refusal. Must not
know what is done with the bytes, nor which client asked for them: no part of a client's request
reaches a kubelet.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote, urlsplit

import aiohttp

from kmproxy.client.pins import Peer
from kmproxy.client.upstream import Upstream
from kmproxy.config.sections import KubeletConfig
from kmproxy.config.types import Address
from kmproxy.errors import ForbiddenError, UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.kube.outage import Outage
from kmproxy.kube.permissions import (
    NODE_LOG,
    NODE_METRICS,
    NODE_PODS,
    NODE_PROXY,
    Permission,
    advice,
)
from kmproxy.sources.answer import (
    JSON,
    METRICS_TEXT,
    Answer,
    Exposition,
    Form,
    Size,
    decoded,
    opened,
    require_form,
)
from kmproxy.sources.endpoints import CADVISOR, ENDPOINTS
from kmproxy.sources.log_answer import LogAnswer, log_answer

ACCEPT = "text/plain;version=0.0.4"
"""The requested format: text, never protobuf."""

PODS = "/pods"
MAX_PODS = 512 << 20
"""Bytes of a list of pods that are read at most.

A list of 500 pods usually has about 3 MB, and at most 750 MB.
"""

STEP = 1 << 14
"""Bytes of a list of pods that are read in one step: a few milliseconds, also for a hostile one."""

LOGS = "/logs/pods/"
MAX_INDEX = 1 << 20
"""Bytes of a folder's index that are read at most. A container's folder has some 10 names."""

LOG_PATIENCE = 10.0
"""Seconds for the head of an answer with log lines, and between two of its pieces."""

LOG_LIMIT = 60.0
"""Seconds for a whole answer with log lines, of which so few are asked for at once."""

MAX_REFUSAL = 4096
_REVIEW_FAILED = b"Authorization error"
"""The beginning of the body of a 500 response if the review of a request failed."""

_LOG_PATH = re.compile(r"/[A-Za-z0-9._/-]+")
_REMEMBERS = "the kubelet remembers a review for 2 minutes"
_SUBRESOURCES = re.compile(rb"subresource(?:\(s\))?=\[?([a-z ]+)")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of response: the form that it must have, and the permission that it needs.

    The permission is the one that a kubelet demands with direct access. `lost` is the hint for
    a 404.
    """

    form: Form
    permission: Permission
    lost: str = ""


_METRICS = _Kind(METRICS_TEXT, NODE_METRICS)
_CADVISOR = replace(_METRICS, lost=": check --node-cadvisor-path")
_POD_LIST = _Kind(JSON, NODE_PODS)


class MetricsSource(Protocol):
    """A source of the metrics of nodes: their kubelets, or reads of theirs that are shared."""

    def fetch(self, node: Node, endpoint: str) -> AbstractAsyncContextManager[Exposition]:
        """Fetch an endpoint of a node. Raises UpstreamError."""


class Reader(Protocol):
    """Takes a document in pieces as they arrive. Raises UpstreamError if it is malformed."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""


class Kubelet:
    """Fetches from the kubelets of a cluster, in the configured way.

    `outage` tells whether the API server is away. A kubelet needs the API server to review tokens.
    """

    def __init__(
        self, config: KubeletConfig, upstream: Upstream, outage: Outage | None = None
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._outage = outage
        self._proxy = _proxy_base(config)

    def __repr__(self) -> str:
        return f"<Kubelet {self.source}>"

    @property
    def source(self) -> str:
        """The source of the metrics, described for a person."""
        node = self._config.node if self.has_node else "each node"
        if self._proxy:
            return f"{node}, through the node proxy of {self._proxy}"
        if not self.has_node:
            return f"{node}, by {self._config.scheme}"
        return f"{self._config.scheme}://{node}:{self._config.kubelet_port}"

    @property
    def has_node(self) -> bool:
        """Whether a node is configured for the paths that name none."""
        return self._config.has_node

    @property
    def configured(self) -> Node:
        """The configured node, for the paths that name none."""
        return Node(self._config.node, self._config.node, self._config.kubelet_port)

    def url(self, node: Node, endpoint: str) -> str:
        """The URL of an endpoint of a node. Raises ValueError if it is not one of `ENDPOINTS`."""
        if endpoint not in ENDPOINTS:
            raise ValueError(endpoint)
        return self._url(node, self._config.cadvisor_path if endpoint == CADVISOR else endpoint)

    def _url(self, node: Node, path: str) -> str:
        if self._proxy:
            return f"{self._proxy}/api/v1/nodes/{quote(node.name, safe='')}/proxy{path}"
        host = f"[{node.host}]" if ":" in node.host else node.host
        return f"{self._config.scheme}://{host}:{node.port or self._config.kubelet_port}{path}"

    def peer(self, node: Node) -> Peer | None:
        """The peer whose certificate is expected. None with the node proxy of the API server."""
        if self._proxy:
            return None
        place = Address(node.host, node.port or self._config.kubelet_port)
        key = f"uid:{node.uid}" if node.uid else f"address:{place}"
        return Peer(node.name, key, listed=node.uid is not None)

    @asynccontextmanager
    async def fetch(self, node: Node, endpoint: str) -> AsyncIterator[Exposition]:
        """Fetch one of `ENDPOINTS` from a node's kubelet. Raises UpstreamError."""
        async with (
            self.open(node, endpoint) as answer,
            aclosing(self.decoded(answer)) as pieces,
        ):
            yield Exposition(answer.content_type, pieces)

    @asynccontextmanager
    async def open(self, node: Node, endpoint: str) -> AsyncIterator[Answer]:
        """Ask a node's kubelet for one of `ENDPOINTS`. Raises UpstreamError."""
        url = self.url(node, endpoint)
        async with self._upstream.get(
            url, accept=ACCEPT, accept_encoding="gzip", peer=self.peer(node)
        ) as response:
            await self._require_reviewed(response)
            self._check(response, _CADVISOR if endpoint == CADVISOR else _METRICS)
            yield opened(self._upstream, response, self._size)

    async def pods(self, node: Node, reader: Reader) -> None:
        """Feed a node's PodList to a reader. Raises UpstreamError, also above `MAX_PODS` bytes."""
        size = 0
        async with self._upstream.get(
            self._url(node, PODS), accept="application/json", peer=self.peer(node)
        ) as response:
            if response.status == 403 and not self._proxy:
                raise await self._forbidden_pods(response)
            await self._require_reviewed(response)
            self._check(response, _POD_LIST)
            async for piece in self._upstream.pieces(response):
                size += len(piece)
                if size > MAX_PODS:
                    message = f"the {self._upstream.name}'s list of pods is over {MAX_PODS} bytes"
                    raise UpstreamError("too_large", message)
                for start in range(0, len(piece), STEP):
                    reader.feed(piece[start : start + STEP])
                    await asyncio.sleep(0)

    async def log(self, node: Node, path: str, span: tuple[int, int] | None = None) -> LogAnswer:
        """Get a folder's index, or the bytes `span` of a file: the first one and the last one.

        `path` begins with `LOGS` and is made of names only. Raises UpstreamError for an answer that
        tells nothing about the file, is cut short, or has more bytes than were asked for.
        """
        if not path.startswith(LOGS) or not _LOG_PATH.fullmatch(path) or "/.." in path:
            raise ValueError(path)
        try:
            async with asyncio.timeout(LOG_LIMIT):
                return await self._log(node, path, span)
        except TimeoutError as error:
            message = f"the {self._upstream.name} sent a part of a log for {LOG_LIMIT:g} s"
            raise UpstreamError("timeout", message, status=504) from error

    async def _log(self, node: Node, path: str, span: tuple[int, int] | None) -> LogAnswer:
        limit = span[1] - span[0] + 1 if span else MAX_INDEX
        async with self._upstream.get(
            self._url(node, path),
            accept="*/*",
            span=span,
            silence=LOG_PATIENCE,
            peer=self.peer(node),
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                message = f"the {self._upstream.name} encoded a log, which was not asked for"
                raise UpstreamError("encoding", message)
            if response.status not in {200, 206, 404, 416}:
                await self._require_reviewed(response)
                raise self._log_refusal(response.status)
            if response.content_length is None and not response.headers.get("Transfer-Encoding"):
                message = f"the {self._upstream.name}'s answer has no length"
                raise UpstreamError("framing", message)
            body = bytearray()
            async for piece in self._upstream.pieces(response, silence=LOG_PATIENCE):
                body += piece
                if len(body) > limit and response.status < 300:
                    message = f"the {self._upstream.name} sent more of a log than asked for"
                    raise UpstreamError("too_large", message)
                if len(body) > MAX_INDEX and response.status >= 300:
                    raise UpstreamError("too_large", "a refusal is too long")
            content_range = response.headers.get("Content-Range", "")
            name = self._upstream.name
            return log_answer(name, response.status, content_range, bytes(body), span)

    def _log_refusal(self, status: int) -> UpstreamError:
        """The error for a status that tells nothing about a log file."""
        name = self._upstream.name
        if status == 403:
            permission = NODE_PROXY if self._proxy else NODE_LOG
            message = f"the {name} forbids to read logs (403): {advice(permission)}"
            return ForbiddenError(permission.resource, message)
        if status == 405:
            message = (
                f"the {name} serves no logs (405): its configuration has enableSystemLogHandler or "
                "enableDebuggingHandlers off; see --source=api"
            )
            return UpstreamError("status", message)
        if status == 401:
            message = f"the {name} does not accept our credentials (401)"
            return UpstreamError("unauthorized", message)
        return UpstreamError("status", f"the {name} answered with HTTP status {status}")

    async def _forbidden_pods(self, response: aiohttp.ClientResponse) -> ForbiddenError:
        """The error for a 403. Its body names the permissions that this kubelet knows."""
        said = await self._said(response)
        found = _SUBRESOURCES.search(said)
        old = found is not None and b"pods" not in found[1].split()
        permission, why = (
            (NODE_PROXY, " (the kubelet is older than 1.33)") if old else (NODE_PODS, "")
        )
        message = f"the kubelet forbids to list its pods (403): {advice(permission)}{why}"
        return ForbiddenError(permission.resource, message)

    async def _said(self, response: aiohttp.ClientResponse) -> bytes:
        """The beginning of the body of a refusal."""
        said = b""
        async for piece in self._upstream.pieces(response):
            said += piece
            if len(said) > MAX_REFUSAL:
                break
        return said

    async def _require_reviewed(self, response: aiohttp.ClientResponse) -> None:
        """Raise UpstreamError if the kubelet could not get a review from the API server.

        A kubelet answers 401 if the token cannot be reviewed, the same as for a wrong token. It
        answers 500 if the access of the token's user cannot be reviewed. A 403 means that the API
        server has reviewed the request.
        """
        if not self._reviews:
            return
        away = self.away
        if response.status == 401 and away:
            message = f"{away}, and the kubelet cannot review kmproxy's token (401): {_REMEMBERS}"
            raise UpstreamError("unreviewed", message)
        if response.status == 500 and (await self._said(response)).startswith(_REVIEW_FAILED):
            if away:
                message = f"{away}, and the kubelet cannot review kmproxy's rights (500)"
            else:
                message = (
                    "the kubelet cannot review kmproxy's rights (500): its own request to the "
                    "API server fails, see the kubelet's log"
                )
            raise UpstreamError("unreviewed", message)

    @property
    def _reviews(self) -> bool:
        """Whether the kubelets themselves ask for reviews of kmproxy's requests."""
        return not self._proxy and self._config.scheme == "https"

    @property
    def away(self) -> str:
        """A text that says how long the API server has been away. Empty if it is not away.

        Empty also if the kubelets do not ask for reviews.
        """
        seconds = self._outage.seconds if self._outage and self._reviews else None
        return "" if seconds is None else f"the API server has been away for {seconds:.0f} s"

    def decoded(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """Decode an answer, to its proven end. Raises UpstreamError, also if it is too large."""
        return decoded(answer, self._size)

    @property
    def _size(self) -> Size:
        return Size(self._upstream.name, self._config.max_response_bytes)

    def _check(self, response: aiohttp.ClientResponse, kind: _Kind) -> None:
        """Raise UpstreamError if a response must not be served as a whole one."""
        if response.status != 200:
            raise UpstreamError(*self._refusal(response, kind))
        require_form(response, kind.form, self._upstream.name)

    def _refusal(self, response: aiohttp.ClientResponse, kind: _Kind) -> tuple[str, str]:
        """The reason and the message for a status other than 200."""
        name, status = self._upstream.name, response.status
        permission = NODE_PROXY if self._proxy else kind.permission
        if status == 401:
            return "unauthorized", (
                f"the {name} does not accept kmproxy's credentials (401): "
                "check that token authentication is on and the token is for this cluster"
            )
        if status == 403:
            return "forbidden", f"the {name} forbids it (403): {advice(permission)}"
        if 300 <= status < 400:
            return "redirect", f"the {name} answered with a redirect ({status}), not followed"
        hint = kind.lost if status == 404 else ""
        if hint and self._proxy and "json" in response.headers.get("Content-Type", ""):
            hint = ": the cluster has no node of this name"  # the API server's own Status
        return "status", f"the {name} answered with HTTP status {status}{hint}"


def _proxy_base(config: KubeletConfig) -> str | None:
    """The API server's URL before /api, for the node proxy. None if no node proxy is used."""
    if not config.apiserver:
        return None
    named = config.apiserver if "://" in config.apiserver else f"https://{config.apiserver}"
    parts = urlsplit(named)
    default = 443 if parts.scheme == "https" else 80
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or config.port or default}"
