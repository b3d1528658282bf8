"""The port of `kmproxy logs`: the page for people, and `/targets`.

Knows paths and queries. Must not know how logs are read and sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from aiohttp import hdrs, web

from kmproxy.errors import one_line
from kmproxy.exposition.selection import QueryError, check_keys
from kmproxy.logs.page import (
    KEYS,
    Containers,
    LogsStatus,
    Shipping,
    TargetQuery,
    body,
    choose,
    targets_document,
    title,
)
from kmproxy.logs.shipper import Shipper
from kmproxy.status.model import Certificate, Process, Setting
from kmproxy.status.query import one_of, one_text, page_number
from kmproxy.status.responses import in_steps, respond
from kmproxy.web.health import Readiness
from kmproxy.web.responses import application, not_allowed, plain, reads

STEP: Final = 100
"""Containers whose labels are looked up in one step. It takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The facts of the page that do not depend on logs."""

    certificates: list[Certificate]
    process: Process
    settings: list[Setting]


@dataclass(frozen=True, slots=True, eq=False)
class LogsPort:
    """Serves the page and `/targets`. `source` names the kubelet or the API server for a person.

    `label_age` returns the seconds since the API server confirmed the labels, `process` the facts
    about the process.
    """

    shipper: Shipper
    readiness: Readiness
    source: str
    label_age: Callable[[], float]
    process: Callable[[], ProcessFacts]
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    def application(self) -> web.Application:
        """Return the application for the port."""
        return application(self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, raw = request.raw_path.partition("?")
        if path not in {"/", "/targets"}:
            return plain(404, "no such path: / and /targets are here")
        if not reads(request):
            return not_allowed()
        try:
            if path == "/targets":
                check_keys(parse_qs(raw, keep_blank_values=True))
                headers = {hdrs.CONTENT_TYPE: "application/json"}
                document = targets_document(self.shipper.targets())
                return web.Response(body=document, headers=headers)
            query = _read_query(raw)
        except QueryError as error:
            return plain(400, str(error))
        async with self._turn:
            status = self._status(await in_steps(self._containers(query)))
            return await respond(request, status, title(status), body(status, query))

    def _containers(self, query: TargetQuery) -> Generator[None, None, Containers]:
        """Look up all containers in steps, and choose the ones that are asked for."""
        found = []
        for number, each in enumerate(self.shipper.source.all(), 1):
            found.append(self.shipper.target(each))
            if not number % STEP:
                yield
        return choose(found, query)

    def _status(self, containers: Containers) -> LogsStatus:
        source, batches, sender = self.shipper.source, self.shipper.batches, self.shipper.sender
        oldest, age, facts = batches.oldest(), self.label_age(), self.process()
        problem = self.readiness.problem()
        troubled = source.trouble or sender.last_error or containers.failing
        return LogsStatus(
            health="unready" if problem else "failing" if troubled else "well",
            problem=one_line(problem) if problem else None,
            shipping=Shipping(
                source=self.source,
                reading=source.trouble and one_line(source.trouble),
                endpoint=urlsplit(sender.url)._replace(query="").geturl(),
                sending=sender.last_error and one_line(sender.last_error),
                held=batches.held,
                buffer=int(batches.limits.buffer),  # a size of the configuration is no plain int
                oldest=None if oldest is None else max(0.0, source.wall() - oldest / 1e9),
            ),
            containers=containers,
            labels_confirmed=age if math.isfinite(age) else None,
            certificates=facts.certificates,
            process=facts.process,
            settings=facts.settings,
        )


def _read_query(raw: str) -> TargetQuery:
    """Read the query of the page. Raises QueryError."""
    query = parse_qs(raw, keep_blank_values=True)
    check_keys(query, *KEYS)
    return TargetQuery(
        text=one_text(query, "q").strip(),
        tenant=one_text(query, "tenant"),
        sort="name" if one_of(query, "sort", ("worst", "name")) == "name" else "worst",
        page=page_number(query),
    )
