"""All stages together, with other namespace labels and with pods, against the plain reading."""

from __future__ import annotations

import random
from itertools import product

import pytest

from kmproxy.exposition.engine import available
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Globs, Selection
from tests.support import general_lines, lines, reference
from tests.support.engines import counts, fed

# Coverage would make the same lines slow, many times.
pytestmark = pytest.mark.no_cover


def run(engine, text, cuts, recipe, labels, pods):
    """The output and all counts of a pipeline, which is fed again where it needs pods."""
    lookup = general_lines.pod_lookup(pods) if pods is not None else None
    pipeline = Pipeline(
        lambda space: general_lines.rendered(labels.get(space, ())),
        recipe,
        pods=lookup,
        engine=engine,
    )
    output, asked = [], 0
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        try:
            output.append(pipeline.feed(text[start:end]))
        except PodsNeededError:
            asked += 1
            output.append(pipeline.feed(b""))
    try:
        output.append(pipeline.finish())
    except PodsNeededError:
        asked += 1
        output.append(pipeline.finish())
    assert asked <= 1
    return b"".join(output), counts(pipeline), pipeline.dropped, asked


def expected(text, recipe, labels, pods):
    """The same of the plain reading."""
    spaces = reference.Spaces(recipe.namespace_labels.names, recipe.namespace_labels.prefixes)
    chosen = recipe.selection
    slow = reference.Selector(
        wants_metric=lambda name: not (chosen.drop_metrics and name[:1] == b"u"),
        wants_namespace=lambda space: (
            chosen.cluster_samples if not space
            else not (chosen.exclude_namespaces.any_of and space[:2] == b"sh")
        ),
        drop_labels=chosen.drop_labels,
        strip=chosen.strip_timestamps,
        spaces=spaces,
    )  # fmt: skip
    selected = text if chosen.everything else reference.select(text, slow)
    result = reference.enrich(
        selected, labels, overwrite=recipe.on_conflict == "overwrite", spaces=spaces, pods=pods
    )
    output = result.output
    if recipe.info:
        output = reference.with_info(output, labels, spaces, pods=pods is not None)
    dropped = {} if chosen.everything else slow.dropped
    if pods is not None:
        dropped["unknown_pod"] = result.unknown_pods
    counts = result.samples, result.enriched, result.unparsed, result.conflicts
    return output, counts, dropped


def random_recipe(rng):
    """Options in combination, and pods where they may be."""
    setting, pods = general_lines.choices(rng)
    removed = rng.choice([set(), set(), {b"le"}, {b"id"}, {b"pod"}])
    if not setting.prefixes:
        removed -= set(setting.names)
    chosen = Selection(
        drop_metrics=rng.choice([(), (Globs(("u*",)),)]),
        exclude_namespaces=rng.choice([Globs(()), Globs(("sh*",))]),
        cluster_samples=rng.random() < 0.7,
        drop_labels=frozenset(removed),
        strip_timestamps=rng.random() < 0.3,
    )
    recipe = Recipe(
        names=frozenset(rng.choice([(), lines.ADDED])),
        on_conflict=rng.choice(["keep", "overwrite"]),
        selection=rng.choice([Selection(), chosen, chosen]),
        info=rng.random() < 0.5,
        namespace_labels=setting,
        pods=pods is not None,
    )
    return recipe, pods


@pytest.mark.parametrize("seed", range(12))
def test_all_options_in_combination(seed):
    """Whatever is asked for, and however the text is cut: the same bytes, the same counts."""
    rng = random.Random(seed)
    asked = 0
    for _ in range(120):
        recipe, pods = random_recipe(rng)
        text = lines.random_text(rng, rng.randrange(1, 40))
        if recipe.info:
            text += rng.choice([b"", b"# EOF", b"\n# EOF\n"])
        labels = {key: lines.LABELS[key] for key in lines.LABELS if rng.random() < 0.8}
        wanted = expected(text, recipe, labels, pods)
        all_cuts = (), range(len(text)), lines.random_cuts(rng, text)
        for engine, cuts in product(available(), all_cuts):
            *got, again = run(engine, text, [*cuts], recipe, labels, pods)
            assert tuple(got) == wanted, (engine, text, cuts, recipe)
            asked += again
    assert asked > 20


@pytest.mark.parametrize("seed", range(4))
def test_with_nothing_to_add_nothing_changes(engine, seed):
    """Where neither namespaces nor pods have labels, the output is the input."""
    rng = random.Random(seed)
    for _ in range(100):
        text = lines.random_text(rng, rng.randrange(1, 40))
        setting, pods = general_lines.choices(rng)
        recipe = Recipe(namespace_labels=setting, pods=pods is not None)
        pipeline = Pipeline(lambda _: b"", recipe, pods=lambda *_: b"", engine=engine)
        assert fed(pipeline, text, rng.randrange(1, 99)) == text
        assert (pipeline.enricher.enriched, pipeline.enricher.conflicts) == (0, 0)
        assert not any(pipeline.dropped.values())
