"""Makes the recipe for expositions from the configuration.

Knows the sections of labels and selection. Must not know lines, or where an exposition
comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmproxy.config.pod_labels import PodConfig
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.config.sections import Config
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Recipe
from kmproxy.exposition.selection import Globs, Selection

if TYPE_CHECKING:
    from kmproxy.config.upstreams import UpstreamConfig


def read_recipe(
    labels: LabelConfig, selection: SelectionConfig, pods: PodConfig | None = None
) -> Recipe:
    """Returns the steps applied to the exposition of one node, or of standard input.

    `pods` are the labels that samples get from pods; they need a look-up of pods.
    """
    names = [rule.name for rule in labels.rules if rule.name] + [*(pods.names if pods else ())]
    return Recipe(
        names=frozenset(name.encode() for name in names),
        on_conflict=labels.on_conflict,
        selection=read_selection(selection),
        info=selection.info_metric,
        max_line=selection.max_line_bytes,
        pods=pods is not None and pods.enabled,
    )


def reserved_names(config: Config) -> frozenset[str]:
    """Returns the names that `*` must not make of a namespace's labels.

    They belong to labels of pods, or they would make a namespace label of an upstream.
    """
    reserved = config.pods.reserved
    if not config.upstreams:
        return reserved
    from kmproxy.config import upstreams  # noqa: PLC0415 - most files lack upstreams

    return reserved | upstreams.reserved_names(config.upstreams)


def read_selection(config: SelectionConfig) -> Selection:
    """Returns the configured selection."""
    return Selection(
        keep_metrics=(config.keep_metric,) if config.keep_metric else (),
        drop_metrics=config.drop_metric,
        namespaces=(Globs(config.namespace),) if config.namespace else (),
        exclude_namespaces=Globs(config.exclude_namespace),
        cluster_samples=config.cluster_samples == "keep",
        drop_labels=frozenset(name.encode() for name in config.drop_label),
        strip_timestamps=config.timestamps == "strip",
    )


def read_namespace_labels(config: UpstreamConfig) -> NamespaceLabels:
    """Returns the labels by which a sample of an upstream names its namespace."""
    return NamespaceLabels(
        tuple(label.encode() for label in config.namespace_labels),
        tuple(prefix.encode() for prefix in config.prefixes),
    )
