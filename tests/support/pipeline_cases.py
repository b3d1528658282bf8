"""Fuzz cases for whole pipelines: a recipe, cuts and a text from random bytes, for both engines."""

from __future__ import annotations

from itertools import pairwise

from kmproxy.exposition.engine import available
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Globs, Selection
from tests.support import lines
from tests.support.engines import counts
from tests.support.general_lines import PODS, SETTINGS, pod_lookup, rendered

REMOVED = (frozenset(), frozenset({b"le"}), frozenset({b"le", b"id", b"pod"}), frozenset({b"tier"}))


def pipeline_case(data):
    """A recipe, cuts and a text. The first line is the header: flags, then lengths of pieces."""
    header, _, text = data.partition(b"\n")
    flags = int.from_bytes(header[:3].ljust(3, b"\0"), "little")
    setting = list(SETTINGS.values())[flags & 7]
    chosen = Selection(
        drop_metrics=(Globs(("u*", "x_*")),) if flags & 8 else (),
        keep_metrics=((Globs(("m*", "*_total")),),) if flags & 16 else (),
        exclude_namespaces=Globs(("sh*",)) if flags & 32 else Globs(()),
        cluster_samples=not flags & 64,
        drop_labels=REMOVED[flags >> 7 & 3] - frozenset(setting.names),
        strip_timestamps=bool(flags & 1 << 9),
    )
    recipe = Recipe(
        names=frozenset(lines.ADDED) if flags & 1 << 10 else frozenset(),
        on_conflict="overwrite" if flags & 1 << 11 else "keep",
        selection=chosen,
        info=bool(flags & 1 << 12),
        max_line=(MAX_LINE, 30, 60, 120)[flags >> 13 & 3],
        namespace_labels=setting,
        pods=setting.default and bool(flags & 1 << 15),
    )
    lengths, cuts, at, turn = header[3:], [], 0, 0
    while any(lengths) and (at := at + lengths[turn % len(lengths)]) < len(text):
        cuts.append(at)
        turn += 1
    return recipe, cuts, text


def fed(pipeline, text, cuts):
    """The output for a text in pieces. A pipeline that needs pods is fed again."""
    output = []
    for start, end in pairwise([0, *cuts, len(text)]):
        try:
            output.append(pipeline.feed(text[start:end]))
        except PodsNeededError:
            output.append(pipeline.feed(b""))
    try:
        output.append(pipeline.finish())
    except PodsNeededError:
        output.append(pipeline.finish())
    return b"".join(output)


def reading(engine, recipe, cuts, text):
    """The output and all counts of a pipeline, which is fed again where it needs pods."""
    pipeline = Pipeline(
        lambda space: rendered(lines.LABELS.get(space, ())),
        recipe,
        pods=pod_lookup(PODS) if recipe.pods else None,
        engine=engine,
    )
    try:
        output = fed(pipeline, text, cuts)
    except RepeatedLabelError as error:
        return str(error), error.metric
    return output, counts(pipeline), pipeline.dropped, dict(pipeline.enricher.seen)


def check_pipeline_case(data):
    """The engines that are there give the same, and the cuts do not show."""
    recipe, cuts, text = pipeline_case(data)
    expected = reading("pure", recipe, [], text)
    for engine in available():
        got = reading(engine, recipe, cuts, text)
        assert got == expected, f"{engine}: {got}\nis not\n{expected}\nof {recipe} and {cuts}"
