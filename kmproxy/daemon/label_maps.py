"""The label maps, the watch that keeps them up to date, and the readiness that depends on it.

Knows which maps a configuration needs. Must not know how they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmproxy.config.recipe import reserved_names
from kmproxy.daemon.clients import Clients
from kmproxy.daemon.runtime import AnyRuntime
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespace_info import NamespaceInfoMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.web.health import Readiness


@dataclass(frozen=True, slots=True, eq=False)
class LabelMaps:
    """The labels of all namespaces: for samples, for targets, and for the info metric.

    `targets` is None without HTTP service discovery. `info` is None unless the info metric has a
    path of its own.
    """

    samples: LabelMap
    targets: TargetLabelMap | None
    info: NamespaceInfoMap | None
    watcher: NamespaceWatcher
    readiness: Readiness


def open_label_maps(runtime: AnyRuntime, clients: Clients) -> LabelMaps:
    """Make the maps that the configuration needs. The watch is not started."""
    config = runtime.config
    rules, max_value = config.labels.rules, config.labels.max_label_value_bytes
    reserved = reserved_names(config)
    samples = LabelMap(rules, max_value=max_value, reserved=reserved)
    targets = info = None
    if config.discovery.enabled:
        targets = TargetLabelMap(rules, max_value=max_value, reserved=reserved)
    if config.selection.info_metric and config.kubelet.all_nodes:
        info = NamespaceInfoMap(rules, max_value=max_value)
    watcher = NamespaceWatcher(
        clients.api,
        samples,
        tuple(each for each in (targets, info) if each is not None),
        metrics=runtime.metrics.watch,
        clock=runtime.clock,
        uniform=runtime.uniform,
        outage=clients.outage,
    )
    age_limit = config.apiserver.max_label_age
    readiness = Readiness(watcher.unloaded, lambda: watcher.sync_age, age_limit)
    return LabelMaps(samples, targets, info, watcher, readiness)
