"""`kmproxy check`: tries everything that the daemon will need.

Knows the steps, how long each may take, and what its failure means for the next step.
Must not know how findings are shown. The daemon's own clients send all requests. No credential is
shown, and none is sent to a server to which the daemon would not send it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec

from kmproxy import __version__
from kmproxy.check.certificates import Server
from kmproxy.check.everybody import granted
from kmproxy.check.observations import Examples, Nameless, Provider
from kmproxy.check.report import Access, Coverage, Finding, Metrics, Report, Result, indented
from kmproxy.client.pin_file import PinFile
from kmproxy.config.label_rules import NAME_LABEL, WILDCARD, LabelRule, Namespace
from kmproxy.config.recipe import read_recipe
from kmproxy.config.sections import Config
from kmproxy.daemon.clients import Clients, open_clients
from kmproxy.discovery.pods import PodReader
from kmproxy.errors import (
    ApiError,
    CredentialError,
    ForbiddenError,
    KmproxyError,
    UpstreamError,
)
from kmproxy.exposition.pipeline import Pipeline
from kmproxy.exposition.selector import SeriesError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.nodes import Node
from kmproxy.kube.permissions import (
    EVERYTHING,
    NODE_METRICS,
    NODE_PODS,
    NODE_PROXY,
    Permission,
    needed,
    unneeded,
)
from kmproxy.kube.watch import WatchState
from kmproxy.labels.label_map import LIMITS, LabelMap
from kmproxy.labels.namespaces import explained, list_namespaces
from kmproxy.sources.endpoints import CADVISOR, METRICS
from kmproxy.telemetry import Telemetry
from kmproxy.web.config_file import find_web_config

STEP_TIMEOUT = 10.0
"""Seconds that a step may take. A setting of its own limits the loading of the namespaces."""

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class _Status(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _Review(msgspec.Struct):
    status: _Status


_REVIEW = msgspec.json.Decoder(_Review)


async def is_allowed(api: ApiServer, permission: Permission) -> bool:
    """Whether the API server grants a permission to kmproxy.

    Raises UpstreamError if the API server gives no valid answer.
    """
    spec = {"resourceAttributes": permission.attributes()}
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    body = await api.post(REVIEWS, head | {"spec": spec})
    try:
        status = _REVIEW.decode(body).status
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(200, "garbage", "the API server's access review is not one") from error
    return status.allowed and not status.denied


async def check(
    config: Config,
    warnings: Sequence[str],
    environment: Mapping[str, str],
    *,
    announce: Callable[[str], None],
    show: Callable[[str], None] | None,
    try_node: str | None = None,
    step_timeout: float = STEP_TIMEOUT,
) -> Report:
    """Try everything that the daemon does, once. Raises ConfigError.

    `announce` gets a line at the beginning of each step. `show` gets the text of its results.
    `try_node` names the node to try if every node is served. A step may take `step_timeout`
    seconds.
    """
    report = Report(__version__)
    for warning in warnings:
        report.add("settings", "settings", "warning", warning)
    telemetry, bearer = Telemetry(), config.authorization.mode != "none"
    if find_web_config(config.server, bearer=bearer, clock=time.monotonic, telemetry=telemetry):
        report.add("web-config", "web config", "ok", "it and all that it names can be loaded")
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(step_timeout):
                clients = await stack.enter_async_context(
                    open_clients(config, environment, clock=time.monotonic, telemetry=telemetry)
                )
        except CredentialError as error:
            report.add("identity", "identity", "failed", str(error))
            return report
        except TimeoutError:
            message = f"the kubeconfig's plugin has not answered within {step_timeout:g} s"
            report.add("identity", "identity", "failed", message)
            return report
        if (pinning := clients.pinning) and pinning.path:
            await PinFile(pinning.path, pinning.book, telemetry).load()  # only reads the file
        await _Preflight(config, clients, report, announce, show, try_node, step_timeout).run()
    return report


class _Preflight:
    """The steps of a preflight. Each adds its result to the report, also if it fails."""

    def __init__(
        self,
        config: Config,
        clients: Clients,
        report: Report,
        announce: Callable[[str], None],
        show: Callable[[str], None] | None,
        try_node: str | None,
        step_timeout: float,
    ) -> None:
        self._config = config
        self._clients = clients
        self._report = report
        self._announce = announce
        self._show = show or (lambda _: None)
        self._try_node = try_node
        self._step_timeout = step_timeout
        self._answered: set[tuple[str, str, str]] = set()  # permissions that kubelets proved

    async def run(self) -> None:
        report, identity = self._report, self._clients.identity
        report.identity, report.api_server = repr(identity).strip("<>"), identity.server
        way = f", {identity.server} {identity.way}" if identity.way and identity.way.why else ""
        report.add("identity", "identity", "ok", f"{report.identity}{way}")
        begin = len(report.findings)
        await self._permissions()
        if self._config.authorization.mode != "none":
            await self._everybody()
        labels = await self._namespaces()
        node = await self._node()
        if node is None:
            report.add("metrics", "metrics", "skipped", "there is no node to try")
        else:
            report.node = node.name
            await self._certificate(node)
            await self._metrics(node, labels)
            if self._config.discovery.enabled:
                await self._pods(node)
        report.findings[begin:begin] = self._access_rows()

    @asynccontextmanager
    async def _step(
        self, check: str, subject: str, heading: str, seconds: float | None = None
    ) -> AsyncIterator[None]:
        """Announce a step. If it fails, add a row for the failure, so the next step can begin."""
        self._announce(heading)
        seconds = self._step_timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            message = f"no answer within {seconds:g} s"
        except KmproxyError as error:
            message = error.summary if isinstance(error, ApiError) else str(error)
        else:
            return
        self._report.add(check, subject, "failed", message)
        self._show(indented([f"failed: {message}"]))

    async def _permissions(self) -> None:
        wanted, unwanted = needed(self._config), unneeded(self._config)
        access = self._report.access
        heading = (
            f"Permissions, asked of {self._clients.identity.server}: "
            f"{len(wanted)} needed, {len(unwanted)} that should not be granted"
        )
        async with self._step("permissions", "access reviews", heading):
            for permission in wanted:
                access.append(
                    Access(permission, True, await is_allowed(self._clients.api, permission))
                )
            for permission in unwanted:
                allowed = await is_allowed(self._clients.api, permission)
                access.append(Access(permission, False, allowed))
                if allowed and permission is EVERYTHING:
                    break
        asked = {each.permission for each in access}
        access += [Access(each, True, None) for each in wanted if each not in asked]

    async def _everybody(self) -> None:
        """Find out whether a role lets every caller scrape, as default roles do for some paths."""
        heading = "Who may scrape without a right of its own, asked of the API server"
        async with self._step("everybody", "authorization", heading):
            found = [str(each) async for each in granted(self._clients.api, self._config)]
            result: Result = "warning" if found else "ok"
            message = "nobody may scrape just for being authenticated"
            if found:
                message = f"everybody who is authenticated may {', '.join(found)}"
            self._report.add("everybody", "authorization", result, message)
            self._show(indented([message]))

    async def _namespaces(self) -> LabelMap:
        """List the namespaces into a label map, which stays empty if that fails."""
        labels = LabelMap(
            self._config.labels.rules, max_value=self._config.labels.max_label_value_bytes
        )
        limit = self._config.apiserver.cache_sync_timeout
        async with self._step("namespaces", "namespaces", "Namespaces, listed once", limit):
            try:
                state = WatchState(uniform=lambda low, _: low)
                tally, listing = Tally(labels.rules), labels.listing()
                async for some in list_namespaces(self._clients.api, state):
                    tally.add(some)
                    labels.collect(listing, some)
            except ApiError as error:
                raise UpstreamError(error.reason, explained(error, "list")) from error
            labels.swap(listing, now=0.0)
            self._report.namespaces = tally.total
            self._report.add("namespaces", "namespaces", "ok", f"{tally.total} listed")
            if left_out := sum(map(labels.left_out, LIMITS)):
                message = f"{left_out} are too long, or too many for one namespace, and not added"
                self._report.add("rule", "values of labels", "warning", message)
            for found in tally.coverage():
                self._report.coverage.append(found)
                have = found.total - len(found.without)
                if have or not found.total:
                    message = f"{have} of {found.total} namespaces have a value"
                    self._report.add("rule", found.rule, "ok", message)
                else:
                    message = "no namespace has a value: is the key spelled as on the namespaces?"
                    self._report.add("rule", found.rule, "warning", message)
                self._show(indented(found.lines()))
        return labels

    async def _node(self) -> Node | None:
        """The node to try: the configured node, or another node if every node is served."""
        configured, nodes = self._clients.kubelet.configured, self._clients.nodes
        if nodes is None:
            return configured
        node = configured if self._clients.kubelet.has_node else None
        async with self._step("node", "node", "Node to try"):
            if self._try_node:
                node = await nodes.find(self._try_node)
            elif node is None:
                node = await nodes.first()
            else:
                try:
                    node = await nodes.find(node.name)
                except UpstreamError as error:
                    if error.reason != "no_node":
                        raise
                    node = await nodes.first()
            message = f"{node.name}, at {node.host}, stands for all of them"
            self._report.add("node", "node", "ok", message)
            self._show(indented([message]))
        return node

    async def _certificate(self, node: Node) -> None:
        """Examine the certificate of the server that is asked for metrics."""
        url = urlsplit(self._clients.kubelet.url(node, CADVISOR))
        kubelet, identity = self._config.kubelet, self._clients.identity
        host, port = url.hostname or "", url.port or 443
        if kubelet.apiserver:
            server = Server.of_apiserver(identity, host, port)
        else:
            server = Server.of_kubelet(kubelet, identity, host, port, self._config.access)
        subject = f"{server.name}'s certificate"
        if url.scheme == "http":
            self._report.add("certificate", subject, "skipped", "plain HTTP has none")
            return
        access = self._config.access
        if (kubelet.apiserver and identity.proxy) or (access and access.proxied):
            why = "not looked at: it is behind a forward proxy"
            self._report.add("certificate", subject, "skipped", why)
            return
        async with self._step("certificate", subject, f"Certificate of the {server.name}"):
            peer = self._clients.kubelet.peer(node)
            self._report.certificate = found = await server.examine(self._clients.pinning, peer)
            self._report.add("certificate", subject, *found.verdict)
            self._show(indented(found.lines()))

    async def _metrics(self, node: Node, labels: LabelMap) -> None:
        """Fetch metrics once, as the daemon does, and keep some samples that it would serve."""
        config, kubelet = self._config, self._clients.kubelet
        async with self._step("metrics", "metrics", "Metrics, fetched once"):
            recipe = read_recipe(config.labels, config.selection)
            if config.kubelet.all_nodes:
                recipe = replace(recipe, info=False)
            pipeline = Pipeline(labels.lookup, recipe)
            enricher = pipeline.enricher
            examples, nameless = Examples(enricher.seen), Nameless()
            size = 0
            try:
                async with kubelet.fetch(node, CADVISOR) as exposition:
                    async for piece in exposition.pieces:
                        size += len(piece)
                        nameless.feed(piece)
                        examples.feed(pipeline.feed(piece))
                examples.feed(pipeline.finish() + b"\n")
            except SeriesError as error:
                raise UpstreamError("series", str(error)) from error
            self._answered.add(NODE_METRICS.kind)
            self._report.metrics = found = Metrics(
                kubelet.url(node, CADVISOR),
                size,
                enricher.samples,
                enricher.enriched,
                enricher.unparsed,
                enricher.conflicts,
                tuple(line.decode(errors="replace") for line in examples.best()),
            )
            result: Result = "ok"
            message = f"{found.enriched:,} of {found.samples:,} samples got a label"
            if not found.samples:
                result, message = "warning", "the answer holds no samples"
            elif self._report.namespaces is None:
                result, message = "warning", f"{found.samples:,} samples; no labels are known"
            elif config.labels.rules and not found.enriched:
                result = "warning"
            self._report.add("metrics", "metrics", result, message)
            self._show(indented(found.lines()))
            if nameless.count:
                message = f"{nameless.count:,} have an id and no namespace: they get no label"
                self._report.add("no-namespace", "samples", "warning", message)
                self._show(indented([message]))
            if (name := await self._provider(node)) not in {None, "cadvisor"}:
                message = f"{name}, not cadvisor: it may leave out namespaces, and limits"
                self._report.add("provider", "metrics provider", "warning", message)
                self._show(indented([f"metrics provider: {message}"]))

    async def _provider(self, node: Node) -> str | None:
        """The source of container metrics that the kubelet names, or None if it names none."""
        provider = Provider()
        with suppress(UpstreamError):  # for example a kubelet that is too old to name it
            async with self._clients.kubelet.fetch(node, METRICS) as exposition:
                async for piece in exposition.pieces:
                    provider.feed(piece)
        return provider.name

    async def _pods(self, node: Node) -> None:
        """List the pods of a node once. An older kubelet demands another permission for it."""
        async with self._step("pods", "pods", "Pods, listed once"):
            try:
                reader = PodReader(lambda _: True)
                await self._clients.kubelet.pods(node, reader)
                found = reader.finish()
            except ForbiddenError as error:
                if error.resource == NODE_PROXY.resource:
                    self._want_proxy()
                raise
            self._answered.add(NODE_PODS.kind)
            message = f"{found.count} targets of {len(found.pods)} pods"
            self._report.add("pods", "pods", "ok", message)
            self._show(indented([message]))

    def _want_proxy(self) -> None:
        """Replace the need of `nodes/pods`, which this kubelet does not know, by `nodes/proxy`."""
        access = self._report.access
        said = {each.permission.kind: each.allowed for each in access}
        rest = [e for e in access if e.permission.kind not in {NODE_PODS.kind, NODE_PROXY.kind}]
        wanted = replace(NODE_PROXY, why="the pods of a kubelet older than 1.33")
        access[:] = [*rest, Access(wanted, True, said.get(NODE_PROXY.kind))]

    def _access_rows(self) -> Iterator[Finding]:
        """The rows of the permissions. They are complete only after all other steps.

        A kubelet that answers has proved the permission, even if the API server denies it for all
        nodes: a role may grant it for single nodes.
        """
        for access in self._report.access:
            permission, why = access.permission, access.permission.why
            answered = permission.kind in self._answered
            match access.needed, access.allowed:
                case True, None:
                    row: tuple[Result, str] = "skipped", "not known: the API server did not say"
                case True, True:
                    row = "ok", f"granted: {why}"
                case True, False if answered:
                    row = "warning", "not granted for every node, but this kubelet answers"
                case True, False:
                    row = "failed", f"not granted: {why}"
                case False, True:
                    row = "warning", f"granted and not needed: {why}"
                case _:
                    continue
            yield Finding("permission", str(permission), *row)


class Tally:
    """Collects the namespaces that have no value for a label rule, for each rule.

    For the key `*` these are namespaces with no label except the label of their name. Only the
    names of these namespaces are held.
    """

    def __init__(self, rules: Iterable[LabelRule]) -> None:
        # A rule without a key is a default for the labels that `*` finds.
        self._without: dict[LabelRule, list[str]] = {rule: [] for rule in rules if rule.key}
        self.total = 0

    def add(self, namespaces: Sequence[Namespace]) -> None:
        """Check more namespaces."""
        self.total += len(namespaces)
        for rule, without in self._without.items():
            without.extend(each.name for each in namespaces if not _has_value(rule, each))

    def coverage(self) -> Iterator[Coverage]:
        """The coverage of each rule."""
        for rule, without in self._without.items():
            spelling = f"--{rule.source} {rule.key}"
            names = tuple(sorted(without))
            yield Coverage(spelling, rule.name, rule.default, self.total, names)


def _has_value(rule: LabelRule, namespace: Namespace) -> bool:
    metadata = namespace.labels if rule.source == "label" else namespace.annotations
    if rule.key != WILDCARD:
        return bool(metadata.get(rule.key))
    return any(value for key, value in metadata.items() if key != NAME_LABEL)
