"""The settings of samples: which labels they get, which of them pass, and what is removed.

Knows names, types and defaults. Must not know where values come from, or which values contradict
each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kmproxy.config.expressions import Expression, parse_regex
from kmproxy.config.label_rules import MAX_VALUE, LabelRule, parse_label_name
from kmproxy.config.settings import setting
from kmproxy.config.types import (
    one_of,
    parse_bool,
    parse_count,
    parse_text,
    parse_word,
)

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The label rules, and how labels are added to samples."""

    label: tuple[str, ...] = setting(
        "label", parse_word, ("team",), "KEY[=NAME]",
        "namespace label KEY becomes metric label NAME; '*' takes every label",
        repeatable=True,
    )  # fmt: skip
    annotation: tuple[str, ...] = setting(
        "annotation", parse_word, (), "KEY[=NAME]",
        "namespace annotation KEY becomes metric label NAME", repeatable=True,
    )  # fmt: skip
    label_default: tuple[str, ...] = setting(
        "label-default", parse_text, (), "NAME=VALUE",
        "value of NAME for a namespace that has none", repeatable=True,
    )  # fmt: skip
    max_label_value_bytes: int = setting(
        "max-label-value-bytes", parse_count, MAX_VALUE, "N",
        "a longer value of a namespace's or pod's label or annotation is not added, and counted",
    )  # fmt: skip
    on_conflict: Any = setting(
        "on-conflict", one_of("keep", "overwrite"), "keep", "keep|overwrite",
        "which value stays if a sample already has NAME",
    )  # fmt: skip
    rules: tuple[LabelRule, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """Which samples pass, and what is removed or added. The default changes nothing."""

    keep_metric: tuple[Expression, ...] = setting(
        "keep-metric", parse_regex, (), "REGEX",
        "serve only metrics whose name or family name matches, as a whole", repeatable=True,
    )  # fmt: skip
    drop_metric: tuple[Expression, ...] = setting(
        "drop-metric", parse_regex, (), "REGEX",
        "leave out metrics whose name or family name matches, as a whole", repeatable=True,
    )  # fmt: skip
    namespace: tuple[str, ...] = setting(
        "namespace", parse_word, (), "NAME",
        "serve only samples of these namespaces (globs)", repeatable=True,
    )  # fmt: skip
    exclude_namespace: tuple[str, ...] = setting(
        "exclude-namespace", parse_word, (), "NAME",
        "leave out samples of these namespaces (globs)", repeatable=True,
    )  # fmt: skip
    cluster_samples: str = setting(
        "cluster-samples", one_of("keep", "drop"), "keep", "keep|drop",
        "samples that have no namespace",
    )  # fmt: skip
    drop_label: tuple[str, ...] = setting(
        "drop-label", parse_label_name, (), "NAME",
        "remove this label from samples; of series that become equal, only the first is served",
        repeatable=True,
    )  # fmt: skip
    timestamps: str = setting(
        "timestamps", one_of("keep", "strip"), "keep", "keep|strip",
        "strip removes the samples' timestamps",
    )  # fmt: skip
    info_metric: bool = setting(
        "info-metric", parse_bool, False, "",
        "add kube_namespace_labels of each namespace in an answer; with --all-nodes also serve "
        "/metrics/namespaces, of all namespaces",
    )  # fmt: skip
    max_line_bytes: int = setting(
        "max-line-bytes", parse_count, 1 << 20, "N",
        "a longer line is passed on unchanged, and counted",
    )  # fmt: skip
