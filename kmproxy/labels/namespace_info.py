"""The labels of all namespaces as metrics of their own, with the names of kube-state-metrics.

Each family has one series for each namespace, for joins. Knows the families, and how they turn
metadata keys into label names. Must not know HTTP or the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kmproxy.config.label_rules import WILDCARD, LabelRule, Source
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.rendering import NOT_BY_WILDCARD, Choice, Rendering, render_pairs

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAMILIES: Mapping[Source, bytes] = {
    "label": b"""\
# HELP kube_namespace_labels [STABLE] Kubernetes labels converted to Prometheus labels.
# TYPE kube_namespace_labels gauge
""",
    "annotation": b"""\
# HELP kube_namespace_annotations Kubernetes annotations converted to Prometheus labels.
# TYPE kube_namespace_annotations gauge
""",
}
_NEXT = b"\n"  # between a namespace's labels and its annotations: in values a line feed is escaped
_BATCH = 100  # namespaces in one piece of the exposition
_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)
_HUMP = re.compile(r"([a-z0-9])([A-Z])", re.ASCII)


class NamespaceInfoMap(LabelMap):
    """Maps the name of a namespace to its labels and annotations, in kube-state-metrics' form.

    The rules choose the keys and the defaults. The label names come from the keys, not from
    the rules. A value longer than the rules allow is left out, but its key still counts in
    conflicts of names. All pairs together may take twice the bytes that the rules may make. The
    last values beyond that are left out too.
    """

    def render(self, namespace: ObjectMeta) -> Rendering:
        """Render the pairs of one namespace, each with its leading comma."""
        chosen = Choice(self.renderer.max_value, 2 * self.renderer.budget)
        labels = _pairs("label", namespace.labels, self.rules, chosen)
        annotations = _pairs("annotation", namespace.annotations, self.rules, chosen)
        return Rendering(_NEXT.join((render_pairs(labels), render_pairs(annotations))))

    def exposition(self, wanted: Callable[[str], bool]) -> Iterator[bytes]:
        """Yield the family of labels, with one sample for each existing namespace that is `wanted`.

        If a rule asks for annotations, the family of annotations comes first. The exposition comes
        in pieces. All of them show the map as it is at the call, whenever they are read.
        """
        spaces = [
            (name.encode(), self.lookup(name.encode()))
            for name in sorted(self.existing())
            if wanted(name)
        ]
        annotated = any(rule.source == "annotation" for rule in self.rules)
        return self._families(spaces, ("annotation", "label") if annotated else ("label",))

    @staticmethod
    def _families(
        spaces: Sequence[tuple[bytes, bytes]], sources: Sequence[Source]
    ) -> Iterator[bytes]:
        for source in sources:
            yield _FAMILIES[source]
            sample = b'kube_namespace_%bs{namespace="%%b"%%b} 1\n' % source.encode()
            part = 1 if source == "annotation" else 0
            for at in range(0, len(spaces), _BATCH):
                yield b"".join(
                    sample % (name, pairs.split(_NEXT)[part])
                    for name, pairs in spaces[at : at + _BATCH]
                )


def _pairs(
    source: Source, metadata: Mapping[str, str], rules: Sequence[LabelRule], chosen: Choice
) -> dict[str, str]:
    """Choose the pairs of one source by the rules, in the order of the keys.

    The defaults of labels that only `*` can make come last.
    """
    rules = [rule for rule in rules if rule.source == source]
    named = {rule.key: rule.default for rule in rules if rule.key not in {"", WILDCARD}}
    keys = set(named)
    if any(rule.key == WILDCARD for rule in rules):
        keys |= metadata.keys() - NOT_BY_WILDCARD
    names = info_names(source, [key for key in keys if key in metadata or named.get(key)])
    values: dict[str, str] = {}
    for key in sorted(names, key=lambda key: key not in named):  # keys of rules get room first
        value = metadata.get(key, "")
        if not chosen.admits(names[key], value):
            value = ""
        if value or (value := named.get(key, "")):
            values[key] = value
    pairs = {name: values[key] for key, name in names.items() if key in values}
    for rule in rules:
        if not rule.key:
            pairs.setdefault(info_names(source, [rule.name])[rule.name], rule.default)
    return pairs


def info_names(source: Source, keys: Iterable[str]) -> dict[str, str]:
    """Return the label name of each key, in the sorted order of the keys.

    Characters outside `[a-zA-Z0-9_]` become `_`, and camelCase becomes snake_case. If several keys
    get the same name, `_conflict1`, `_conflict2` ... are added to it, in the order of the keys. A
    suffix never makes a name that another key already has.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}  # name -> key
    suffixes: dict[str, int] = {}  # name in conflict -> the last number given to it

    def own(key: str, name: str) -> None:
        names[key] = name
        owners[name] = key

    def suffixed(name: str) -> str:
        while True:
            suffixes[name] = suffixes.get(name, 0) + 1
            if (free := f"{name}_conflict{suffixes[name]}") not in owners:
                return free

    for key in sorted(keys):
        snake = _HUMP.sub(r"\1_\2", _OUTSIDE_NAME.sub("_", key)).lower()
        name = f"{source}_{snake}"
        if name in suffixes:
            own(key, suffixed(name))
        elif (first := owners.get(name)) is not None:
            del owners[name]
            own(first, suffixed(name))
            own(key, suffixed(name))
        else:
            own(key, name)
    return names
