"""Runs the stages of one exposition in order: select, enrich, add the info metric.

Knows the stages and their order. Must not know what a stage does to a line. A stage that the
recipe does not ask for is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

from kmproxy.exposition.base_enricher import BaseEnricher, OnConflict
from kmproxy.exposition.engine import Engine, named
from kmproxy.exposition.enricher import Enricher
from kmproxy.exposition.general_enricher import GeneralEnricher
from kmproxy.exposition.info_metric import InfoStage
from kmproxy.exposition.lines import MAX_LINE, LineFilter
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pods import PodLookup
from kmproxy.exposition.selection import Selection
from kmproxy.exposition.selector import Selector
from kmproxy.exposition.series import SeriesRoom


@dataclass(frozen=True, slots=True)
class Recipe:
    """The steps applied to an exposition. The default changes nothing.

    `names` are the names of the labels to add, without prefixes, as far as they are known before.
    `info` adds the info metric at the end. `max_line` is in bytes: a longer line passes unchanged.
    `namespace_labels` name the namespaces of a sample. `pods` adds the labels of pods.

    Raises ValueError if `pods` goes together with other namespace labels than `namespace`, or
    if `selection` drops a label of a list of namespace labels.
    """

    names: frozenset[bytes] = frozenset()
    on_conflict: OnConflict = "keep"
    selection: Selection = field(default_factory=Selection)
    info: bool = False
    max_line: int = MAX_LINE
    namespace_labels: NamespaceLabels = field(default_factory=NamespaceLabels)
    pods: bool = False

    def __post_init__(self) -> None:
        if self.pods and not self.namespace_labels.default:
            raise ValueError("pods are named by the label namespace only")
        several = not self.namespace_labels.prefixes and len(self.namespace_labels.names) > 1
        if several and self.selection.drop_labels.intersection(self.namespace_labels.names):
            # Without its first label, a sample would get the labels of another namespace.
            raise ValueError("a label of a list of namespace labels must not be dropped")


class Pipeline:
    """Turns the kubelet's bytes of one exposition into the bytes that are served.

    `enricher` and `selector` hold the counts. `selector` is None where everything is
    selected. Pipelines that run at the same time share a `room`; `close` gives back
    the part that one pipeline has used. `feed` and `finish` raise ExpositionError if
    the exposition cannot be served to its end, and from then on.

    `pods` looks up the labels of pods, if the recipe asks for them. If it raises
    PodsNeededError, so do `feed` and `finish`: then no byte is lost and nothing counted.
    After the list of pods was fetched, the caller goes on with `feed(b"")`, or with
    `finish()` again. Raises ValueError if the recipe asks for pods without a look-up.

    `engine` is the engine that reads the lines, by default the one in use. Raises EngineError if
    it cannot be used.
    """

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        recipe: Recipe,
        *,
        room: SeriesRoom | None = None,
        pods: PodLookup | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.engine = named(engine)
        self.enricher = _enricher(lookup, recipe, pods)
        self.selector: Selector | None = None
        self._lines: LineFilter = self.enricher
        if self.engine == "compiled":
            self._lines, self.selector = _compiled(self.enricher, recipe, room)
        elif not recipe.selection.everything:
            self.selector = Selector(recipe.selection, **_selector_options(recipe, room))
        # The compiled engine selects lines in the same pass.
        self._first = None if self.engine == "compiled" else self.selector
        self._info = InfoStage(self.enricher, recipe.max_line) if recipe.info else None
        self._pods = recipe.pods
        self._waiting = b""  # bytes that wait for the list of pods
        self._enriched = b""  # bytes that wait with them for the next stage

    def __repr__(self) -> str:
        return f"<Pipeline {self.selector!r} {self.enricher!r}>"

    @property
    def dropped(self) -> dict[str, int]:
        """Samples that were left out, by reason."""
        dropped = dict(self.selector.dropped) if self.selector is not None else {}
        if self._pods:
            dropped["unknown_pod"] = self.enricher.unknown_pods
        return dropped

    def feed(self, data: bytes) -> bytes:
        """Takes the next piece. Returns the bytes that can be passed on already."""
        if self._first is not None:
            data = self._first.feed(data)
        self._enrich(data)
        data, self._enriched = self._enriched, b""
        return data if self._info is None else self._info.feed(data)

    def finish(self) -> bytes:
        """Ends the input. Returns the rest."""
        self._enrich(b"" if self._first is None else self._first.finish())
        data = self._enriched + self._lines.finish()
        self._enriched = b""
        return data if self._info is None else self._info.finish(data)

    def _enrich(self, data: bytes) -> None:
        """Enriches bytes, and those that wait. If pods are needed, all of them wait."""
        self._waiting += data
        self._enriched += self._lines.feed(self._waiting)
        self._waiting = b""

    def close(self) -> None:
        """Ends the exposition: its series are forgotten, the counts stay."""
        if self.selector is not None:
            self.selector.forget()


class _SelectorOptions(TypedDict):
    max_line: int
    room: SeriesRoom | None
    namespace_labels: NamespaceLabels


def _selector_options(recipe: Recipe, room: SeriesRoom | None) -> _SelectorOptions:
    return {
        "max_line": recipe.max_line,
        "room": room,
        "namespace_labels": recipe.namespace_labels,
    }


def _compiled(
    enricher: BaseEnricher, recipe: Recipe, room: SeriesRoom | None
) -> tuple[LineFilter, Selector | None]:
    """Returns the stage of the compiled engine, and the selector that it uses."""
    from kmproxy.exposition.compiled import (  # noqa: PLC0415 - it imports the compiled engine
        CompiledLines,
        CompiledSelector,
    )

    selector = None
    if not recipe.selection.everything:
        selector = CompiledSelector(recipe.selection, **_selector_options(recipe, room))
    lines = CompiledLines(
        enricher,
        selector,
        selection=recipe.selection,
        namespace_labels=recipe.namespace_labels,
        on_conflict=recipe.on_conflict,
        max_line=recipe.max_line,
    )
    return lines, selector


def _enricher(
    lookup: Callable[[bytes], bytes], recipe: Recipe, pods: PodLookup | None
) -> BaseEnricher:
    """Returns the enricher for a recipe."""
    if recipe.pods and pods is None:
        raise ValueError("a recipe with pods needs their look-up")
    if recipe.pods or not recipe.namespace_labels.default:
        return GeneralEnricher(
            lookup,
            recipe.namespace_labels,
            pods=pods if recipe.pods else None,
            names=recipe.names,
            on_conflict=recipe.on_conflict,
            max_line=recipe.max_line,
        )
    return Enricher(
        lookup, names=recipe.names, on_conflict=recipe.on_conflict, max_line=recipe.max_line
    )
