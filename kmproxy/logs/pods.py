"""The containers of a node whose logs are read, by its kubelet's list of pods.

Knows the statuses of containers, the selection by names, and the share of one process. Must not
know where a list comes from, or files. A name that could not be a part of a path is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kmproxy.config.logs import LogsConfig
from kmproxy.config.logs_values import Shard
from kmproxy.errors import UpstreamError
from kmproxy.exposition.selection import Globs
from kmproxy.kube.pod_list import PodListReader
from kmproxy.logs.lines import Container

MAX_CONTAINERS: Final = 10_000
"""Containers of one node that are followed at most. A kubelet runs 110 pods by default."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}", re.ASCII)


class Followed(msgspec.Struct, frozen=True):
    """A container, as the pod's status shows it.

    `latest` is the number of its newest instance, `is_ended` whether that terminated, `is_final`
    whether none follows. A container of a pod that `is_ending` may be gone soon, with its files.
    """

    container: Container
    latest: int
    is_ended: bool
    is_ending: bool
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class LogSelection:
    """Whose logs are read: by globs of names, and by a hash of the pod's UID."""

    namespaces: Globs | None = None
    without_namespaces: Globs = field(default_factory=lambda: Globs(()))
    containers: Globs | None = None
    without_containers: Globs = field(default_factory=lambda: Globs(()))
    shard: Shard = Shard(0, 1)

    @classmethod
    def of(cls, config: LogsConfig) -> LogSelection:
        """Return the selection that the settings describe."""
        return cls(
            Globs(config.namespace) if config.namespace else None,
            Globs(config.exclude_namespace),
            Globs(config.container) if config.container else None,
            Globs(config.exclude_container),
            config.shard,
        )

    def wants_namespace(self, namespace: str) -> bool:
        """Tell whether lines of a namespace may be wanted."""
        if self.namespaces is not None and not self.namespaces.match(namespace):
            return False
        return not self.without_namespaces.match(namespace)

    def wants_pod(self, namespace: str, uid: str) -> bool:
        """Tell whether a pod's logs may be wanted."""
        return self.wants_namespace(namespace) and in_shard(uid, self.shard)

    def wants_container(self, name: str) -> bool:
        """Tell whether the logs of containers of this name are wanted."""
        if self.containers is not None and not self.containers.match(name):
            return False
        return not self.without_containers.match(name)


def in_shard(uid: str, shard: Shard) -> bool:
    """Tell whether a process has the pod with this UID. Exactly one of `shard.of` has it."""
    if shard.of == 1:
        return True
    digest = hashlib.sha256(uid.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8]) % shard.of == shard.number


class _Present(msgspec.Struct, gc=False):
    """A state that a container is in. Its details do not count."""


class _State(msgspec.Struct, gc=False):
    running: _Present | None = None
    terminated: _Present | None = None


# `name` and `restart_count` are in every status. If they were optional, a hostile kubelet could
# send millions of statuses of two bytes, `{}`, and each takes 80 bytes of memory.
class _ContainerStatus(msgspec.Struct, rename="camel", gc=False):
    name: str
    restart_count: int
    state: _State | None = None
    last_state: _State | None = None


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None
    ephemeral_container_statuses: list[_ContainerStatus] | None = None

    def all(self) -> Iterator[_ContainerStatus]:
        yield from self.init_container_statuses or ()
        yield from self.container_statuses or ()
        yield from self.ephemeral_container_statuses or ()


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_POD = msgspec.json.Decoder(_Pod)


class LogPodReader:
    """Reads a PodList in pieces, and keeps the wanted containers that have started.

    Both methods raise UpstreamError if the data is not a PodList, so a list that is not understood
    completely never counts as one without pods. `left_out` counts containers beyond
    `MAX_CONTAINERS`, and those whose names cannot be names.
    """

    def __init__(self, selection: LogSelection) -> None:
        self._selection = selection
        self._reader = PodListReader(_POD)
        self._found: dict[Container, Followed] = {}
        self.left_out = 0

    def __repr__(self) -> str:
        return f"<LogPodReader {len(self._found)} containers, {self._reader!r}>"

    @property
    def found(self) -> dict[Container, Followed]:
        """The containers so far."""
        return self._found

    def add(self, data: bytes | msgspec.Raw) -> str:
        """Read one pod by itself, and return its UID. Raises UpstreamError."""
        try:
            pod = _POD.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise UpstreamError("garbage", "the API server's pod is not one") from error
        self._add(pod)
        return pod.metadata.uid

    def feed(self, data: bytes) -> None:
        """Read the next piece."""
        for each in self._reader.feed(data):
            self._add(each)

    def finish(self) -> dict[Container, Followed]:
        """End the list. Returns its containers."""
        for each in self._reader.finish():
            self._add(each)
        return self._found

    def _add(self, pod: _Pod) -> None:
        meta, wants = pod.metadata, self._selection
        if not wants.wants_pod(meta.namespace, meta.uid):
            return
        named = _NAME.fullmatch(meta.name) and _NAME.fullmatch(meta.namespace)
        good = named and _UID.fullmatch(meta.uid) and ".." not in meta.name
        is_over = pod.status.phase in {"Succeeded", "Failed"}
        for status in pod.status.all():
            if not wants.wants_container(status.name):
                continue
            followed = _followed(pod, status, is_over=is_over)
            if not good or not _NAME.fullmatch(status.name) or status.restart_count < 0:
                self.left_out += 1
            elif followed is None:
                continue
            elif len(self._found) >= MAX_CONTAINERS:
                self.left_out += 1
            else:
                self._found[followed.container] = followed


def _followed(pod: _Pod, status: _ContainerStatus, *, is_over: bool) -> Followed | None:
    """Return a container that has started, or None."""
    meta = pod.metadata
    state, last = status.state or _State(), status.last_state or _State()
    is_running = state.running is not None
    is_ended = not is_running and (state.terminated is not None or last.terminated is not None)
    if not is_running and not is_ended:
        return None
    node = pod.spec.node_name
    container = Container(meta.uid, meta.namespace, meta.name, status.name, node)
    is_leaving = is_over or meta.deletion_timestamp is not None
    is_final = is_ended and is_leaving
    is_ending = is_leaving or not is_running
    return Followed(container, status.restart_count, is_ended, is_ending, is_final)
