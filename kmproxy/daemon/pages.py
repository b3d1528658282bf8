"""The paths of the metrics port other than scrapes: targets and the info metric.

Knows which of these paths a configuration serves. Must not know what their handlers answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from kmproxy.config.sections import Config
from kmproxy.daemon.clients import Clients
from kmproxy.daemon.label_maps import LabelMaps
from kmproxy.daemon.runtime import Runtime
from kmproxy.discovery.handler import PODS, HttpDiscovery
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.discovery.targets import TargetService
from kmproxy.discovery.upstreams import UPSTREAMS, UpstreamDiscovery, UpstreamTarget
from kmproxy.scrape.handler import Page
from kmproxy.scrape.namespace_info import NamespaceInfo
from kmproxy.scrape.routes import NAMESPACES, UPSTREAM_PATH
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.web.health import Readiness
from kmproxy.web.responses import Handler


def open_pages(
    runtime: Runtime, clients: Clients, labels: LabelMaps, limit: ConcurrencyLimit
) -> dict[str, Page]:
    """The pages by path. `limit` bounds the requests to kubelets at the same time."""
    handlers: dict[str, Handler] = {}
    if labels.targets is not None:
        handlers |= _discovery(runtime, clients, labels.targets, labels.readiness, limit)
    if labels.info is not None:
        info = NamespaceInfo(
            labels.info,
            runtime.config.selection,
            readiness=labels.readiness,
            metrics=runtime.metrics.scrapes,
            clock=runtime.clock,
            longest=runtime.config.server.max_scrape_time,
        )
        handlers |= info.handlers
    if runtime.config.upstreams:
        handlers |= UpstreamDiscovery(_targets(runtime.config), runtime.metrics.discovery).handlers
    shown = {PODS: PODS if clients.kubelet.has_node else f"{PODS}?node={{node}}"}
    return {
        path: Page(handler, shown.get(path, path), by_tenant=path in {PODS, NAMESPACES, UPSTREAMS})
        for path, handler in handlers.items()
    }


def _targets(config: Config) -> list[UpstreamTarget]:
    return [
        UpstreamTarget(each.name, UPSTREAM_PATH.format(name=each.name), each.place)
        for each in config.upstreams
    ]


def _discovery(
    runtime: Runtime,
    clients: Clients,
    labels: TargetLabelMap,
    readiness: Readiness,
    limit: ConcurrencyLimit,
) -> Mapping[str, Handler]:
    """The handlers of HTTP service discovery, by path."""
    targets = TargetService(
        config=runtime.config.discovery,
        workloads=runtime.config.pods.workload,
        kubelet=clients.kubelet,
        directory=clients.nodes,
        slots=limit,
        metrics=runtime.metrics.discovery,
        clock=runtime.clock,
    )
    runtime.stack.push_async_callback(targets.close)
    return HttpDiscovery(
        targets,
        labels,
        all_nodes=clients.nodes is not None,
        readiness=readiness,
        metrics=runtime.metrics.discovery,
    ).handlers
