"""Lists of pods read as targets, and the labels that the kubelet's own annotations make."""

from __future__ import annotations

import json

from kmproxy.config.label_rules import parse_rules
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import TargetLabelMap

META = "__meta_kubernetes_"


def label_map(*namespaces, rules=("team",), defaults=()):
    """The labels of targets as these namespaces have them."""
    labels = TargetLabelMap(parse_rules(rules, (), defaults)[0])
    labels.replace(namespaces, 0.0)
    return labels


def of(target, prefix):
    """The labels of a target whose names begin so, without it."""
    start = META + prefix
    return {
        key.removeprefix(start): value for key, value in target.items() if key.startswith(start)
    }


SEEN, SOURCE = "kubernetes.io/config.seen", "kubernetes.io/config.source"


def listed(*pods):
    """The targets of a list of these pods."""
    return parse_pods(json.dumps({"items": pods}).encode(), lambda _: True)
