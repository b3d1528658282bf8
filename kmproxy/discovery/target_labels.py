"""The labels that objects and namespaces give to targets, with the names of Prometheus' own roles.

Knows how a label or annotation becomes a label of a target, and the limits of a target. Must not
know which targets an object has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.rendering import Choice, Rendering

META = "__meta_kubernetes_"
"""The beginning of the names that Prometheus' roles give."""

MAX_VALUE = 4096
"""Bytes of the longest label or annotation value of a pod or node that a target gets."""

MAX_METADATA = 32 << 10
"""Bytes that all labels and annotations of one pod or node take at most. A usual pod has 5,000."""

_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)
encode = msgspec.json.Encoder(order="deterministic").encode


class TargetLabelMap(LabelMap):
    """Maps a namespace's name to the labels that the targets of its pods get, as JSON.

    These are the namespace's own labels and annotations, with the names of
    Prometheus' `attach_metadata`, and the labels that the rules make. Values longer
    than the rules' limit are left out, but their marks of presence stay. The
    namespace's own labels and annotations may take twice the bytes of the labels
    that the rules make. Beyond that, the last ones in sorted order are left out.
    """

    def render(self, namespace: ObjectMeta) -> Rendering:
        """The pairs of one namespace, each with its leading comma."""
        chosen = Choice(self.renderer.max_value, 2 * self.renderer.budget)
        pairs = metadata("namespace", namespace.labels, namespace.annotations)
        pairs = {name: value for name, value in pairs.items() if chosen.admits(name, value)}
        return Rendering(more_pairs(pairs | self.renderer.choose(namespace).pairs))


def metadata(
    role: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, str]:
    """An object's labels and annotations as labels of a target, each with its mark of presence.

    If two keys become one name, the first key in sorted order gives the value. In
    Prometheus either of them may.
    """
    pairs: dict[str, str] = {}
    for kind, metadata in (("label", labels), ("annotation", annotations)):
        for key in sorted(metadata):
            name = _OUTSIDE_NAME.sub("_", key)
            pairs.setdefault(f"{META}{role}_{kind}_{name}", metadata[key])
            pairs[f"{META}{role}_{kind}present_{name}"] = "true"
    return pairs


def more_pairs(pairs: Mapping[str, Any]) -> bytes:
    """The pairs of a JSON object without its braces, after a comma."""
    return b"," + encode(pairs)[1:-1] if pairs else b""
