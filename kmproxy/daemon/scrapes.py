"""The metrics port: scrapes of kubelets and upstreams, the pages beside them, and the status page.

Must not know how a scrape is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from kmproxy.auth.authorizer import Authorizer
from kmproxy.config.recipe import read_recipe
from kmproxy.config.sections import Config
from kmproxy.daemon.clients import Clients
from kmproxy.daemon.label_maps import LabelMaps
from kmproxy.daemon.runtime import Runtime
from kmproxy.daemon.status import ServedPath, ServedPaths, StatusPage
from kmproxy.exposition.series import SeriesRoom
from kmproxy.scrape.handler import MetricsPort, Page
from kmproxy.scrape.pod_lists import PodLists
from kmproxy.scrape.routes import UPSTREAM_PATH, served_paths
from kmproxy.scrape.scraper import Scraper
from kmproxy.scrape.source import Kubelets, UpstreamSource
from kmproxy.scrape.stream import Streamer
from kmproxy.sources.cache import SharedReads
from kmproxy.sources.endpoints import NODE_PREFIX
from kmproxy.sources.kubelet import Kubelet, MetricsSource
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.status.outcomes import Outcomes
from kmproxy.status.seen import SeenNamespaces


def open_scrapes(
    runtime: Runtime,
    clients: Clients,
    labels: LabelMaps,
    limit: ConcurrencyLimit,
    pages: Mapping[str, Page],
    authorizer: Authorizer | None,
) -> MetricsPort:
    """The metrics port, not yet listening. `limit` bounds the scrapes at the same time."""
    config, metrics = runtime.config, runtime.metrics
    recipe = read_recipe(config.labels, config.selection, config.pods)
    if clients.nodes is not None:  # the info metric has a path of its own
        recipe = replace(recipe, info=False)
    kubelets = Kubelets(
        clients.kubelet,
        _open_reads(runtime, clients.kubelet),
        clients.nodes,
        limit,
        SeriesRoom(config.server.max_concurrency),
        recipe,
        _open_pods(runtime, clients.kubelet),
    )
    upstreams: Mapping[str, UpstreamSource] = {}
    if clients.upstreams:
        from kmproxy.daemon.upstreams import upstream_sources  # noqa: PLC0415 - most daemons have none

        upstreams = upstream_sources(runtime, clients.upstreams, info=recipe.info)
    scraper = Scraper(
        Streamer(labels.samples, metrics.samples),
        labels.readiness,
        metrics.upstream_errors,
        config.server.max_scrape_time,
    )
    outcomes = Outcomes()
    status = StatusPage(
        runtime,
        labels.watcher,
        labels.readiness,
        labels.samples,
        SeenNamespaces(labels.samples.existing, runtime.clock),
        outcomes,
        _served_paths(config, clients, pages),
        runtime.clock(),
    )
    return MetricsPort(
        scraper,
        kubelets,
        upstreams,
        pages,
        status.answer,
        outcomes,
        authorizer,
        metrics.scrapes,
        runtime.clock,
    )


def _served_paths(config: Config, clients: Clients, pages: Mapping[str, Page]) -> ServedPaths:
    """The served paths, with the server behind each for a person."""
    kubelet = clients.kubelet
    paths = served_paths(all_nodes=clients.nodes is not None, a_node=kubelet.has_node)
    return ServedPaths(
        kubelets=[
            ServedPath(path, "each node" if path.startswith(NODE_PREFIX) else kubelet.source)
            for path in paths
        ],
        upstreams=[
            ServedPath(UPSTREAM_PATH.format(name=each.name), each.shown)
            for each in config.upstreams
        ],
        others=[page.shown for page in pages.values()],
    )


def _open_reads(runtime: Runtime, kubelet: Kubelet) -> MetricsSource:
    """The source of metrics: the kubelets, or with --share-reads reads that scrapes share."""
    config = runtime.config.kubelet
    if config.share_reads is None:
        return kubelet
    reads = SharedReads(
        kubelet,
        max_age=config.share_reads,
        room=config.share_reads_max_bytes,
        longest=runtime.config.server.max_scrape_time,
        metrics=runtime.metrics.shared_reads,
        clock=runtime.clock,
    )
    runtime.stack.push_async_callback(reads.close)
    return reads


def _open_pods(runtime: Runtime, kubelet: Kubelet) -> PodLists | None:
    """The pods of scraped nodes, or None if samples get no labels of pods.

    The first list of the configured node begins now. Nothing waits for it.
    """
    config = runtime.config
    if not config.pods.enabled:
        return None
    pods = PodLists(
        config.pods,
        kubelet,
        max_value=config.labels.max_label_value_bytes,
        at_once=config.server.max_concurrency,
        metrics=runtime.metrics.pods,
        clock=runtime.clock,
    )
    runtime.cancel_at_end(asyncio.create_task(pods.run()))
    return pods
