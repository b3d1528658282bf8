"""Expositions with other namespace labels and with pods, and the two readings of them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import NamedTuple

from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.general_enricher import GeneralEnricher
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from tests.support import lines, reference

SETTINGS = {
    "the default": NamespaceLabels(),
    "another label": NamespaceLabels((b"exported_namespace",)),
    "a list": NamespaceLabels((b"exported_namespace", b"namespace")),
    "a long list": NamespaceLabels((b"namespace_", b"Namespace", b"namespace", b"le")),
    "one prefix": NamespaceLabels((b"namespace",), (b"n_",)),
    "prefixes": NamespaceLabels((b"namespace", b"exported_namespace"), (b"n_", b"e_")),
    "prefixes that meet": NamespaceLabels((b"exported_namespace", b"namespace"), (b"t", b"t")),
    "a prefix of a list": NamespaceLabels((b"namespace", b"Namespace"), (b"", b"x_")),
}


class Pods:
    """The labels of pods: of two in three, made of their names."""

    def __getitem__(self, key):
        """The pairs of a known pod. Some names are those that namespaces bring, too."""
        if sum(key[1]) % 3 == 0:
            raise KeyError(key)
        workload = b'"%b"' % key[1][:1].replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(
            b"\n", b"\\n"
        )
        many = [
            [(b"workload", workload), (b"workload_type", b'"deployment"')],
            [(b"team", b'"of the pod"'), (b"workload", workload)],
            [],
            [(b"le", workload)],
        ]
        return many[sum(key[0] + key[1]) % 4]


PODS = Pods()


def rendered(pairs):
    """The bytes to add for some pairs."""
    return b"".join([b",%b=%b" % pair for pair in pairs])


class Reading(NamedTuple):
    """The result of a reading of an exposition."""

    output: bytes
    samples: int
    enriched: int
    unparsed: int
    conflicts: int
    unknown_pods: int


def pod_lookup(pods, *, fetched=False):
    """A look-up that asks for the list once, when the first pod is not known."""
    state = {"fetched": fetched}

    def lookup(namespace, pod):
        try:
            return rendered(pods[namespace, pod])
        except KeyError:
            if not state["fetched"]:
                state["fetched"] = True
                raise PodsNeededError from None
        return None

    return lookup


def _stage(lookup, pods, setting, **options):
    """The pure engine's stage for any setting. It takes again what it did not take."""
    return GeneralEnricher(lookup, setting, pods=pods, **options), False


def _pipeline(engine, lookup, pods, setting, **options):
    """A pipeline. It has taken what it could not pass on."""
    recipe = Recipe(namespace_labels=setting, pods=pods is not None, **options)
    return Pipeline(lookup, recipe, pods=pods, engine=engine), True


def _recipe(*, overwrite=False, limit=MAX_LINE, names=()):
    """Options of an enricher."""
    on_conflict = "overwrite" if overwrite else "keep"
    return {"names": frozenset(names), "on_conflict": on_conflict, "max_line": limit}


def fed(text, cuts=(), *, setting, labels=None, pods=None, engine="pure", **options):
    """The output of an enricher that is fed with the pieces between the cuts, and its counts."""
    labels = lines.LABELS if labels is None else labels
    make = _stage if engine == "pure" else partial(_pipeline, engine)
    made, takes = make(
        lambda space: rendered(labels.get(space, ())),
        pod_lookup(pods) if pods is not None else None,
        setting,
        **_recipe(**options),
    )
    output = []
    for start, end in pairwise([0, *cuts, len(text)]):
        try:
            output.append(made.feed(text[start:end]))
        except PodsNeededError:
            output.append(made.feed(b"" if takes else text[start:end]))
    try:
        output.append(made.finish())
    except PodsNeededError:
        output.append(made.finish())
    return b"".join(output), made.enricher if takes else made


def by_engine(text, cuts=(), **options):
    """An engine's. Of a text that is refused it says why."""
    try:
        output, found = fed(text, cuts, **options)
    except RepeatedLabelError as error:
        return refused(error.label, error.metric)
    counts = found.samples, found.enriched, found.unparsed, found.conflicts, found.unknown_pods
    return Reading(output, *counts)


def refused(label, metric):
    """The reading of a text that is refused for a metric that repeats a label."""
    return Reading(b"refused: %b of %b" % (label, metric), 0, 0, 0, 0, 0)


def by_reference(text, *, setting, labels=None, overwrite=False, limit=MAX_LINE, pods=None):
    """The plain one, of the whole text."""
    labels = lines.LABELS if labels is None else labels
    try:
        found = reference.enrich(
            text, labels, overwrite=overwrite, max_line=limit, pods=pods,
            spaces=reference.Spaces(setting.names, setting.prefixes),
        )  # fmt: skip
    except reference.RepeatedLabel as error:
        return refused(*error.args)
    counts = found.samples, found.enriched, found.unparsed, found.conflicts, found.unknown_pods
    return Reading(found.output, *counts)


def choices(rng):
    """A setting, and pods where they may be."""
    setting = rng.choice([*SETTINGS.values(), SETTINGS["the default"], SETTINGS["the default"]])
    return setting, PODS if setting.default and rng.random() < 0.8 else None
