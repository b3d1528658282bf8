"""Lists and watches the pods whose logs are read from the API server.

Knows the paths and selectors of lists, and when to list and to watch. Must not know how a log is
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Protocol

import msgspec

from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import REQUEST_TIMEOUT, ApiServer
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.permissions import PODS, advice
from kmproxy.kube.watch import SILENCE, Next, WatchState
from kmproxy.logs.pod_labels import WatchedPodLabels
from kmproxy.logs.pods import MAX_CONTAINERS, Followed, LogPodReader, LogSelection

SLICE: Final = 100
"""Pods that are read in one turn of the event loop."""

_ACCEPT: Final = "application/json"
_PLAIN: Final = frozenset("*?[")

Found = Mapping[str, tuple[Followed, ...]]
"""The wanted containers of pods, by UID."""


def places(namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths of the lists: of the whole cluster if a namespace is a pattern, or none is.

    A Role may allow single namespaces, and then only these lists.
    """
    if not namespaces or any(_PLAIN & set(each) for each in namespaces):
        return ("/api/v1/pods",)
    return tuple(f"/api/v1/namespaces/{each}/pods" for each in dict.fromkeys(namespaces))


class Follower(Protocol):
    """Takes the pods of one list."""

    def replace(self, path: str, found: Found) -> None:
        """Replace all pods of the list."""

    def change(self, path: str, uid: str, found: tuple[Followed, ...] | None) -> None:
        """Replace a pod. None: it was deleted."""

    def note_failure(self, error: UpstreamError | CredentialError, what: str, message: str) -> None:
        """Count and say a failure."""


@dataclass(slots=True, eq=False)
class PodWatcher:
    """Keeps the pods of one list up to date. `node` is the name of the only node, or None."""

    api: ApiServer
    path: str
    node: str | None
    selection: LogSelection
    follower: Follower
    _: KW_ONLY
    clock: Callable[[], float]
    uniform: Callable[[float, float], float]
    labels: WatchedPodLabels | None = None
    is_live: bool = field(init=False, default=False)
    """Whether the pods are those of the moment, as far as anybody can know."""
    left_out: int = field(init=False, default=0)
    """Containers of the last list that are too many, or have impossible names."""
    _state: WatchState = field(init=False)
    _backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self._state = WatchState(uniform=self.uniform)
        self._backoff = Backoff(uniform=self.uniform)

    async def run(self) -> None:
        """List and watch until cancelled. After a failure, wait and try again."""
        step = Next.LIST
        while True:
            listing, began = step.lists, self.clock()
            try:
                step = await (self._list() if listing else self._watch())
            except (UpstreamError, CredentialError) as error:
                self.is_live = False
                verb = "list" if listing else "watch"
                self.follower.note_failure(error, verb, explained(error, verb))
                step = Next.LIST if listing else Next.WATCH
                unreached = False
                if isinstance(error, UpstreamError):
                    lasted = self.clock() - began
                    step = self._state.failed(error, listing=listing, lasted=lasted)
                    unreached = self._state.unreached(error, listing=listing)
                if not step.at_once:
                    least = getattr(error, "retry_after", None) or 0.0
                    now = self.clock()
                    delay = self._backoff.delay(now, at_least=least, unreached=unreached)
                    await asyncio.sleep(delay)

    async def _list(self) -> Next:
        found, self.left_out = await list_pods(
            self.api, self.path, self.node, self._state, self._read
        )
        self.is_live = True
        self.follower.replace(self.path, found)
        return Next.WATCH_AT_ONCE

    def _read(self, data: bytes | msgspec.Raw) -> tuple[str, LogPodReader]:
        reader = LogPodReader(self.selection)
        uid = reader.add(data)
        if self.labels is not None:
            self.labels.put(data, uid)
        return uid, reader

    async def _watch(self) -> Next:
        began = self.clock()
        params = _params(self._state.watch_params(), self.node)
        stream = self.api.stream(self.path, params, accept=_ACCEPT, silence=SILENCE)
        async with stream as pieces:
            self._state.opened()
            self.is_live = True
            async for piece in pieces:
                for change in self._state.feed(piece):
                    if change is None:
                        continue
                    uid, reader = self._read(change.raw)
                    gone = change.kind == "DELETED"
                    if gone and self.labels is not None:
                        name = change.meta.name
                        for each in reader.found:
                            self.labels.delete(each.namespace, name, uid, self.clock())
                    found = None if gone else tuple(reader.found.values())
                    self.follower.change(self.path, uid, found)
        return self._state.ended(self.clock() - began)


async def list_pods(
    api: ApiServer,
    path: str,
    node: str | None,
    state: WatchState,
    read: Callable[[bytes], tuple[str, LogPodReader]],
) -> tuple[Found, int]:
    """List pods. Returns their wanted containers, and the number of those that are left out.

    Raises UpstreamError and CredentialError.
    """
    found: dict[str, tuple[Followed, ...]] = {}
    token, number, containers, left_out = "", 0, 0, 0
    while True:
        page = ListReader()
        params = _params(state.list_params(token), node)
        async with api.stream(path, params, accept=_ACCEPT, silence=REQUEST_TIMEOUT) as pieces:
            async for piece in pieces:
                for each in page.raw(piece):
                    uid, one = read(each)
                    left_out += one.left_out
                    if one.found and containers + len(one.found) > MAX_CONTAINERS:
                        left_out += len(one.found)
                    elif one.found:
                        found[uid] = tuple(one.found.values())
                        containers += len(one.found)
                    number += 1
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
        end = page.finish()
        token = end.continue_
        if not token:
            state.listed(end.resource_version)
            return found, left_out


def _params(params: dict[str, str], node: str | None) -> dict[str, str]:
    return params | ({"fieldSelector": f"spec.nodeName={node}"} if node else {})


def explained(error: UpstreamError | CredentialError, verb: str) -> str:
    """Explain why pods cannot be listed or watched, and tell the remedy."""
    if isinstance(error, ApiError):
        if error.code == 403:
            return f"the API server forbids to {verb} pods: {advice(*PODS)}"
        return error.summary
    return str(error)
