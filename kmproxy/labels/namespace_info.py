"""The labels of all namespaces as metrics of their own, spelled as kube-state-metrics does.

Knows the families and how keys become label names there. Must not know HTTP, nor
who asks. One series a namespace, for joins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kmproxy.config.label_rules import WILDCARD, LabelRule, Namespace, Source
from kmproxy.labels.label_map import LabelMap, Listing
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
_NEXT = b"\n"  # between the labels and the annotations of one: no value has it unescaped
_BATCH = 100  # namespaces of a piece
_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)
_HUMP = re.compile(r"([a-z0-9])([A-Z])", re.ASCII)


class NamespaceInfoMap(LabelMap):
    """From a namespace's name to its labels and annotations, as kube-state-metrics has them.

    They are those that the rules ask for, by their keys, with the rules'
    defaults; the names that the rules give them are not used. Values over the
    rules' limit are left out, but not their part in conflicts of names; so are
    the last of them past twice the bytes that the rules may make.
    """

    loaded = False
    """Whether the namespaces have been listed once."""

    def swap(self, listing: Listing, now: float) -> None:
        """Take a listing for all the namespaces there are, and own it."""
        super().swap(listing, now)
        self.loaded = True

    def render(self, namespace: Namespace) -> Rendering:
        """The pairs of one namespace, each with its leading comma."""
        chosen = Choice(self.renderer.max_value, 2 * self.renderer.budget)
        labels = _pairs("label", namespace.labels, self.rules, chosen)
        annotations = _pairs("annotation", namespace.annotations, self.rules, chosen)
        return Rendering(_NEXT.join((render_pairs(labels), render_pairs(annotations))))

    def exposition(self, wanted: Callable[[str], bool]) -> Iterator[bytes]:
        """A family of labels, with a sample for each namespace that exists and is wanted.

        One of annotations stands before it if a rule asks for these. It comes in
        pieces, all of this moment, whenever they are read.
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
    """What the rules ask for of one source, in the keys' order; defaults of `*` at the end."""
    rules = [rule for rule in rules if rule.source == source]
    named = {rule.key: rule.default for rule in rules if rule.key not in {"", WILDCARD}}
    keys = set(named)
    if any(rule.key == WILDCARD for rule in rules):
        keys |= metadata.keys() - NOT_BY_WILDCARD
    names = info_names(source, [key for key in keys if key in metadata or named.get(key)])
    values: dict[str, str] = {}
    for key in sorted(names, key=lambda key: key not in named):  # what is named has room first
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
    """The label name of each key, in sorted order.

    Characters outside `[a-zA-Z0-9_]` become `_`, camelCase snake_case. Keys of
    one name get `_conflict1`, `_conflict2` ... in their order, and no name that
    another key has.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}  # name -> key
    suffixes: dict[str, int] = {}  # the last one given for a name that is in conflict

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
