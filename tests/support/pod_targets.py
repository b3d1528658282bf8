"""Lists of pods read as targets, and the kubelet's own annotations."""

from __future__ import annotations

import json

from kmproxy.config.label_rules import parse_rules
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import TargetLabelMap

META = "__meta_kubernetes_"


def label_map(*namespaces, rules=("team",), defaults=()):
    """The target labels of these namespaces."""
    labels = TargetLabelMap(parse_rules(rules, (), defaults)[0])
    labels.replace(namespaces, 0.0)
    return labels


def of(target, prefix):
    """The labels of a target with this prefix, without the prefix."""
    start = META + prefix
    return {
        key.removeprefix(start): value for key, value in target.items() if key.startswith(start)
    }


SEEN, SOURCE = "kubernetes.io/config.seen", "kubernetes.io/config.source"


def listed(*pods):
    """The targets of a list of these pods."""
    return parse_pods(json.dumps({"items": pods}).encode(), lambda _: True)
