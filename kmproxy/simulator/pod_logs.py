"""The log of one container, as a kubelet streams it, and the API server's `pods/log` passes it on.

Knows the query's parameters, and how a kubelet makes text of a CRI log file: only of the file that
is written now, never of a rotated one. Must not know users, or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from kmproxy.simulator.answers import headers
from kmproxy.simulator.logs import LogContainer, LogPod
from kmproxy.simulator.statuses import StatusError, not_found

POLL = 0.02
"""Seconds between two looks at a file that is followed."""

PIECE = 64 << 10

_TRUE = ("true", "1")


class PodLogs:
    """Answers requests for logs. `closing` returns the event that the API server stops."""

    def __init__(
        self, pods: Callable[[], Iterable[LogPod]], closing: Callable[[], asyncio.Event]
    ) -> None:
        self._pods = pods
        self._closing = closing
        self.followers = 0
        """Requests with `follow` that are under way."""
        self.most = 0
        """The most of them at the same time."""
        self._cut = 0

    def __repr__(self) -> str:
        return f"<PodLogs {self.followers} followers>"

    def end_all(self) -> None:
        """End all requests with `follow`, as a kubelet does after 4 hours."""
        self._cut += 1

    async def serve(
        self, request: web.Request, namespace: str, name: str, container_name: str | None = None
    ) -> web.StreamResponse:
        """Send a log. Without `container_name` the query has it. Raises StatusError."""
        query = request.query
        wanted = query.get("container", "") if container_name is None else container_name
        container = self._container(namespace, name, wanted)
        instance = container.instance
        if query.get("previous", "") in _TRUE:
            instance -= 1
        path = container.folder / f"{instance}.log"
        if instance < 0 or not path.exists():
            text = f'previous terminated container "{container.name}" in pod "{name}" not found'
            raise StatusError(400, text)
        since = _seconds(query.get("sinceTime", ""))
        limit = query.get("limitBytes", "")
        if limit and not (limit.isdecimal() and int(limit)):
            raise StatusError(422, f"limitBytes: {limit!r} is not greater than 0")
        text_of = _Text(
            since,
            timestamps=query.get("timestamps", "") in _TRUE,
            limit=int(limit) if limit else None,
        )
        response = web.StreamResponse(headers=headers({"Content-Type": "text/plain"}))
        response.enable_chunked_encoding()
        if query.get("follow", "") not in _TRUE:
            with _opened(path) as file:
                await self._copy(request, response, file, text_of)
        else:
            self.followers += 1
            self.most = max(self.most, self.followers)
            try:
                with contextlib.suppress(ConnectionResetError):  # the client has left
                    await self._follow(request, response, container, instance, path, text_of)
            finally:
                self.followers -= 1
        if not response.prepared:
            await response.prepare(request)
        return response

    def _container(self, namespace: str, name: str, wanted: str) -> LogContainer:
        found = [each for each in self._pods() if (each.namespace, each.name) == (namespace, name)]
        if not found:
            raise not_found("pods", name)
        containers = found[-1].containers
        if not wanted and len(containers) > 1:
            text = f"a container name must be specified for pod {name}, choose one of: "
            raise StatusError(400, text + f"[{' '.join(containers)}]")
        if wanted and wanted not in containers:
            raise StatusError(400, f"container {wanted} is not valid for pod {name}")
        return containers[wanted or next(iter(containers))]

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        container: LogContainer,
        instance: int,
        path: Path,
        text_of: _Text,
    ) -> None:
        cut = self._cut
        file = _opened(path)
        try:
            while not self._closing().is_set() and cut == self._cut:
                runs = container.running and container.instance == instance
                await self._copy(request, response, file, text_of)
                if (
                    not runs
                    or text_of.is_over
                    or request.transport is None
                    or request.transport.is_closing()
                ):
                    return
                if _was_rotated(path, file):
                    file.close()  # what was written there meanwhile is not read
                    file = _opened(path)
                    continue
                await asyncio.sleep(POLL)
        finally:
            file.close()

    @staticmethod
    async def _copy(
        request: web.Request, response: web.StreamResponse, file: BinaryIO, text_of: _Text
    ) -> None:
        """Send the whole lines that the file has now. The head goes out with the first byte."""
        while lines := file.readlines(PIECE):
            if not lines[-1].endswith(b"\n"):
                file.seek(-len(lines[-1]), 1)
                lines.pop()
            if text := b"".join(map(text_of, lines)):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(text)
            if not lines or text_of.is_over:
                return


class _Text:
    """Makes text of CRI lines, from `since` on, in seconds since 1970: at most `limit` bytes."""

    def __init__(self, since: float, *, timestamps: bool, limit: int | None) -> None:
        self._since = since
        self._timestamps = timestamps
        self._limit = limit
        self._is_new = True

    @property
    def is_over(self) -> bool:
        """Whether as many bytes were made as there may be."""
        return self._limit == 0

    def __call__(self, line: bytes) -> bytes:
        stamp, _, tag, text = line.split(b" ", 3)
        is_new, is_whole = self._is_new, tag == b"F"
        self._is_new = is_whole
        if _seconds(stamp.decode()) < self._since:
            return b""
        head = _padded(stamp) + b" " if self._timestamps and is_new else b""
        whole = head + (text if is_whole else text[:-1])
        if self._limit is not None:
            whole = whole[: self._limit]
            self._limit -= len(whole)
        return whole


def newest(logs: Iterable[Iterable[LogPod]]) -> Iterator[LogPod]:
    """Yield the pods of all nodes, those that are being deleted first."""
    yield from sorted((pod for pods in logs for pod in pods), key=lambda pod: not pod.deleted)


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _was_rotated(path: Path, file: BinaryIO) -> bool:
    """Whether the runtime writes to another file by now."""
    return path.exists() and not os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _padded(stamp: bytes) -> bytes:
    """A time with nine digits behind the point."""
    whole, _, fraction = stamp.removesuffix(b"Z").partition(b".")
    return b"%s.%sZ" % (whole, fraction.ljust(9, b"0"))


def _seconds(text: str) -> int:
    """Whole seconds since 1970 of a time in UTC, 0 without one."""
    if not text:
        return 0
    try:
        when = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise StatusError(400, f"sinceTime: {text!r} is not a time") from error
    return int(when.timestamp())
