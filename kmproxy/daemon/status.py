"""The facts of the status page, read from the daemon's objects for each request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiohttp import web

from kmproxy.auth.middleware import DECISION
from kmproxy.config.sections import ACCESS_KEY, SECTIONS, Config
from kmproxy.daemon.process import certificates, process, values
from kmproxy.daemon.runtime import Runtime
from kmproxy.errors import AccessError, one_line
from kmproxy.exposition.selection import QueryError
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.status import page
from kmproxy.status.model import (
    Health,
    Labels,
    Nodes,
    Rule,
    Scrape,
    Setting,
    Snapshot,
    Status,
)
from kmproxy.status.namespaces import find_namespaces
from kmproxy.status.outcomes import Outcome, Outcomes, Scraped, Survey
from kmproxy.status.query import PageQuery, read_query
from kmproxy.status.responses import in_steps, respond
from kmproxy.status.seen import SeenNamespaces
from kmproxy.status.settings import effective, section_given
from kmproxy.web.health import Readiness
from kmproxy.web.responses import plain

MOST_NODES: Final = 50
"""Failing endpoints of nodes that are listed at most."""

LEAST_NODES: Final = 15
"""Endpoints of nodes that are listed if fewer are failing: these and the slowest others."""

MOST_TENANTS: Final = 50
"""Tenants whose scrapes of a path are listed at most."""


@dataclass(frozen=True, slots=True)
class ServedPath:
    """A path of metrics as the documentation writes it, and the server behind it for a person."""

    path: str
    source: str


@dataclass(frozen=True, slots=True)
class ServedPaths:
    """What the metrics port serves: paths of kubelets, of upstreams, and others."""

    kubelets: Sequence[ServedPath]
    upstreams: Sequence[ServedPath]
    others: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class StatusPage:
    """Answers requests for the status page. Its facts are the state of these objects.

    Requests take turns, so any number of them leaves the event loop to scrapes between two steps.
    """

    runtime: Runtime
    watcher: NamespaceWatcher
    readiness: Readiness
    labels: LabelMap
    seen: SeenNamespaces
    outcomes: Outcomes
    paths: ServedPaths
    started: float
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request of an authorized caller."""
        try:
            query = read_query(request.raw_path.partition("?")[2], self.labels.names)
        except QueryError as error:
            return plain(400, str(error))
        seen = caller = None
        decision = request.get(DECISION)
        if decision is not None and (tenant := decision.tenant) is not None:
            caller = decision.caller
            try:
                seen = await self.seen.of(tenant, decision)
            except AccessError as error:
                return plain(error.status, str(error))
        async with self._turn:
            status = await self._status(query, caller, seen)
            return await respond(request, status, page.title(status), page.body(status, query))

    async def _status(
        self, query: PageQuery, caller: str | None, seen: Sequence[str] | None
    ) -> Status:
        """The facts that a caller may see.

        A tenant is named by `caller`, and sees the namespaces `seen` and its own scrapes.
        """
        runtime, config = self.runtime, self.runtime.config
        namespaces = await in_steps(find_namespaces(self.labels, query.namespaces, seen))
        survey = Survey.of(self.outcomes.nodes() if caller is None else [])
        await asyncio.sleep(0)
        scrapes = self._scrapes(self.paths.kubelets, caller, survey)
        upstreams = self._scrapes(self.paths.upstreams, caller, survey)
        nodes = None
        if config.kubelet.all_nodes and caller is None:
            nodes = self._nodes(query.node, survey)
        await asyncio.sleep(0)
        problem = self.readiness.problem()
        whole = caller is None
        return Status(
            health=_health(problem, [*scrapes, *upstreams], nodes),
            problem=one_line(problem) if problem else None,
            scrapes=scrapes,
            nodes=nodes,
            upstreams=upstreams,
            namespaces=namespaces,
            labels=self._labels(whole=whole),
            paths=list(self.paths.others),
            certificates=certificates(runtime.metrics, runtime.wall()) if whole else [],
            process=process(config.server.telemetry_listen, runtime.clock() - self.started)
            if whole
            else None,
            settings=_settings(config) if whole else None,
        )

    def _scrapes(
        self, paths: Iterable[ServedPath], caller: str | None, survey: Survey
    ) -> list[Scrape]:
        """The outcomes of paths: all of them, or the ones of one tenant."""
        found = []
        for each in paths:
            own = self.outcomes.of(Scraped(each.path, caller=caller or ""))
            tenants = []
            if caller is None:
                tenants = list(self.outcomes.tenants(each.path))[-MOST_TENANTS:]
            if own is not None or not tenants:
                source = each.source if caller is None else ""
                found.append(_of_nodes(self._scrape(Scraped(each.path), own, source), survey))
            for name, outcome in tenants:
                subject = Scraped(each.path, caller=name)
                found.append(self._scrape(subject, outcome, each.source))
        return found

    def _nodes(self, text: str, survey: Survey) -> Nodes:
        total, failing = len(survey.failing) + len(survey.others), len(survey.failing)
        if text:
            found = (*survey.failing, *survey.others)
            survey = Survey.of([each for each in found if text in each[0].node])
        rows = survey.worst(MOST_NODES, LEAST_NODES)
        return Nodes(
            total=total,
            failing=failing,
            found=len(survey.failing) + len(survey.others),
            rows=[self._scrape(subject, outcome, "") for subject, outcome in rows],
        )

    def _scrape(self, subject: Scraped, outcome: Outcome | None, source: str) -> Scrape:
        path, node, caller = subject
        if outcome is None:
            return Scrape(path=path, source=source, state="never", caller=caller)
        now = self.runtime.clock()
        error_at, since = outcome.error_at, outcome.failing_since
        return Scrape(
            path=path,
            source=source,
            state=outcome.state,
            node=node,
            caller=one_line(caller),
            code=outcome.code,
            ended=now - outcome.ended_at,
            took=outcome.seconds,
            samples=outcome.samples,
            labelled=outcome.labelled,
            error=outcome.error or None,
            error_ago=None if error_at is None else now - error_at,
            failing_for=None if since is None else now - since,
            history=outcome.history,
        )

    def _labels(self, *, whole: bool) -> Labels:
        age, trouble = self.watcher.sync_age, self.watcher.trouble
        return Labels(
            confirmed=age if math.isfinite(age) else None,
            restored=self.watcher.restored,
            trouble=one_line(trouble) if trouble and whole else None,
            on_conflict=self.runtime.config.labels.on_conflict,
            rules=[
                Rule(source=each.source, key=each.key, name=each.name, default=each.default)
                for each in self.labels.rules
            ],
            snapshot=self._snapshot() if whole else None,
        )

    def _snapshot(self) -> Snapshot | None:
        file = self.runtime.config.apiserver.label_snapshot
        if file is None:
            return None
        metrics = self.runtime.metrics.snapshot
        written = values(metrics.saved).get("", 0.0)
        errors = values(metrics.errors)
        return Snapshot(
            file=file,
            written=self.runtime.wall() - written if written else None,
            read_errors=int(errors.get("read", 0)),
            write_errors=int(errors.get("write", 0)),
        )


def _of_nodes(scrape: Scrape, survey: Survey) -> Scrape:
    """The path that all nodes share is failing if one of them is."""
    failing = survey.failing_of[scrape.path]
    if not failing or scrape.state == "failing":
        return scrape
    error = f"{failing} of {survey.counts[scrape.path]} nodes failing, see Nodes"
    return msgspec.structs.replace(scrape, state="failing", error=error, error_ago=None)


def _settings(config: Config) -> list[Setting]:
    found = effective(getattr(config, name) for name in SECTIONS)
    found.append(section_given(ACCESS_KEY, given=config.access is not None))
    return found


def _health(problem: str | None, scrapes: Sequence[Scrape], nodes: Nodes | None) -> Health:
    if problem:
        return "unready"
    if any(each.state == "failing" for each in scrapes) or (nodes is not None and nodes.failing):
        return "failing"
    if all(each.state == "never" for each in scrapes):
        return "waiting"
    return "well"
