"""Checks a kubelet: its certificate, its metrics with labels on them, and the list of its pods.

Knows which node stands for all. The requests are those of the daemon's own client.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kmproxy.check.certificates import Server
from kmproxy.check.observations import Examples, Nameless, Provider
from kmproxy.check.permissions import PermissionCheck
from kmproxy.check.report import Metrics, Result
from kmproxy.check.steps import Steps
from kmproxy.config.recipe import read_recipe
from kmproxy.config.sections import Config
from kmproxy.discovery.pods import PodReader
from kmproxy.errors import ForbiddenError, UpstreamError
from kmproxy.exposition.errors import ExpositionError
from kmproxy.exposition.pipeline import Pipeline
from kmproxy.kube.nodes import Node
from kmproxy.kube.permissions import NODE_METRICS, NODE_PODS, NODE_PROXY
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.pods import AnswerPods, PodLabelReader, PodMap
from kmproxy.sources.endpoints import CADVISOR, METRICS
from kmproxy.sources.kubelet import Kubelet, Reader


async def find_node(steps: Steps, named: str | None) -> Node | None:
    """The node to try: the configured node, or another node if every node is served.

    `named` is the name of a node that the user wants to try.
    """
    configured, nodes = steps.clients.kubelet.configured, steps.clients.nodes
    if nodes is None:
        return configured
    node = configured if steps.clients.kubelet.has_node else None
    async with steps.step("node", "node", "Node to try"):
        if named:
            node = await nodes.find(named)
        elif node is None:
            node = await nodes.first()
        else:
            try:
                node = await nodes.find(node.name)
            except UpstreamError as error:
                if error.reason != "no_node":
                    raise
                node = await nodes.first()
        message = f"{node.name}, at {node.host}, is tried for all nodes"
        steps.report.add("node", "node", "ok", message)
        steps.show([message])
    return node


async def check_certificate(steps: Steps, node: Node) -> None:
    """Examine the certificate of the server that is asked for metrics."""
    url = urlsplit(steps.clients.kubelet.url(node, CADVISOR))
    kubelet, identity = steps.config.kubelet, steps.clients.identity
    host, port = url.hostname or "", url.port or 443
    if kubelet.apiserver:
        server = Server.of_apiserver(identity, host, port)
    else:
        server = Server.of_kubelet(kubelet, identity, host, port, steps.config.access)
    subject = f"{server.name}'s certificate"
    if url.scheme == "http":
        steps.report.add("certificate", subject, "skipped", "plain HTTP has none")
        return
    access = steps.config.access
    if (kubelet.apiserver and identity.proxy) or (access and access.proxied):
        why = "not looked at: it is behind a forward proxy"
        steps.report.add("certificate", subject, "skipped", why)
        return
    async with steps.step("certificate", subject, f"Certificate of the {server.name}"):
        peer = steps.clients.kubelet.peer(node)
        steps.report.certificate = found = await server.examine(steps.clients.pinning, peer)
        steps.report.add("certificate", subject, *found.verdict)
        steps.show(found.lines())


async def check_metrics(
    steps: Steps, node: Node, labels: LabelMap, permissions: PermissionCheck, pods: PodMap | None
) -> None:
    """Fetch metrics once, as the daemon does, and keep some samples that it would serve.

    `pods` are the listed pods of the node. Without them the samples get no labels of pods.
    """
    config, kubelet = steps.config, steps.clients.kubelet
    async with steps.step("metrics", "metrics", "Metrics, fetched once"):
        pipeline = _pipeline(config, labels, pods)
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
        except ExpositionError as error:
            raise UpstreamError(error.reason, error.details) from error
        permissions.prove(NODE_METRICS)
        steps.report.metrics = found = Metrics(
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
        elif steps.report.namespaces is None:
            result, message = "warning", f"{found.samples:,} samples; no labels are known"
        elif config.labels.rules and not found.enriched:
            result = "warning"
        steps.report.add("metrics", "metrics", result, message)
        steps.show(found.lines())
        if unknown := pipeline.dropped.get("unknown_pod"):
            message = f"{unknown:,} are left out: their pods are not in the kubelet's list"
            steps.report.add("unknown-pod", "samples of pods", "warning", message)
            steps.show([message])
        if nameless.count:
            message = f"{nameless.count:,} samples have an id but no namespace, and get no label"
            steps.report.add("no-namespace", "samples", "warning", message)
            steps.show([message])
        if (name := await _provider(steps.clients.kubelet, node)) not in {None, "cadvisor"}:
            message = f"{name} instead of cadvisor: namespaces and limits may be missing"
            steps.report.add("provider", "metrics provider", "warning", message)
            steps.show([f"metrics provider: {message}"])


def _pipeline(config: Config, labels: LabelMap, pods: PodMap | None) -> Pipeline:
    """The pipeline of a scrape. A pod that is not in `pods` counts as unknown."""
    recipe = read_recipe(config.labels, config.selection, None if pods is None else config.pods)
    if config.kubelet.all_nodes:
        recipe = replace(recipe, info=False)
    if pods is None:
        return Pipeline(labels.lookup, recipe)
    keep = config.pods.unknown_pod == "keep"
    answer = AnswerPods(pods, math.inf, keep=keep, note=lambda: None)
    answer.use_list()
    return Pipeline(labels.lookup, recipe, pods=answer.lookup)


async def _provider(kubelet: Kubelet, node: Node) -> str | None:
    """The source of container metrics that the kubelet names, or None if it names none."""
    provider = Provider()
    with suppress(UpstreamError):  # for example a kubelet that is too old to name it
        async with kubelet.fetch(node, METRICS) as exposition:
            async for piece in exposition.pieces:
                provider.feed(piece)
    return provider.name


async def check_pods(steps: Steps, node: Node, permissions: PermissionCheck) -> PodMap | None:
    """List the pods of a node once. An older kubelet demands another permission for it.

    Returns the labels of the pods, or None if samples get none, or if the list fails.
    """
    config = steps.config
    pods, known = PodMap() if config.pods.enabled else None, None
    async with steps.step("pods", "pods", "Pods, listed once"):
        targets = PodReader(lambda _: True)
        labels = PodLabelReader(config.pods, max_value=config.labels.max_label_value_bytes)
        try:
            await steps.clients.kubelet.pods(node, _Readers((targets, labels)))
        except ForbiddenError as error:
            if error.resource == NODE_PROXY.resource:
                permissions.want_proxy()
            raise
        found, listing = targets.finish(), labels.finish()
        permissions.prove(NODE_PODS)
        message = f"{found.count} targets of {len(found.pods)} pods"
        if pods is not None:
            pods.swap(listing, now=0.0)
            with_labels = sum(
                bool(each) for names in listing.rendered.values() for each in names.values()
            )
            message = f"{with_labels} of {len(pods)} pods have a value"
        steps.report.add("pods", "pods", "ok", message)
        steps.show([message])
        known = pods
    return known  # noqa: RET504 - a step that fails ends here, too


@dataclass(frozen=True, slots=True)
class _Readers:
    """Several readers of one list."""

    readers: tuple[Reader, ...]

    def feed(self, data: bytes) -> None:
        for each in self.readers:
            each.feed(data)
