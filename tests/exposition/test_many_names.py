"""Namespaces that bring more and more label names, as `--label '*'` lets them."""

from __future__ import annotations

import pytest

from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.remembered import MAX_NAMES
from tests.support import reference
from tests.support.engines import counts

SETTINGS = {
    "the default": {},
    "pods": {"pods": True},
    "a list": {"namespace_labels": NamespaceLabels((b"other", b"namespace"))},
    "prefixes": {"namespace_labels": NamespaceLabels((b"other", b"namespace"), (b"o_", b"n_"))},
}
SPACES = [b"n%d" % number for number in range(4 * MAX_NAMES)]
LABELS = {space: [(b"l_" + space, b'"1"'), (b"team", b'"x"')] for space in SPACES}
PODS = {(space, b"p"): [(b"w_" + space, b'"w"')] for space in SPACES}


def text(prefix):
    """Samples that bear a label that their namespace brings, at first and at last."""
    lines = []
    for space in [*SPACES, *SPACES[:3]]:
        own = b'%bl_%b="own"' % (prefix, space)
        lines += [
            b'm{namespace="%b",%b} 1\n' % (space, own),
            b'm{ %b, "namespace"="%b"} 1\n' % (own, space),
            b'm{namespace="%b",other="n1",pod="p",w_%b="own"} 1\n' % (space, space),
        ]
    return lines


@pytest.mark.parametrize("conflict", ["keep", "overwrite"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_more_names_than_are_searched_for(engine, setting, conflict):
    """Each sample is enriched by the rules, and the time for a namespace does not grow."""
    options = SETTINGS[setting]
    spaces = options.get("namespace_labels") or NamespaceLabels()
    lines = text(spaces.prefixes[-1] if spaces.prefixes else b"")
    expected = reference.enrich(
        b"".join(lines), LABELS, overwrite=conflict == "overwrite",
        spaces=reference.Spaces(spaces.names, spaces.prefixes),
        pods=PODS if options.get("pods") else None,
    )  # fmt: skip

    def labels(pairs):
        return b"".join([b",%b=%b" % pair for pair in pairs])

    pipeline = Pipeline(
        lambda space: labels(LABELS.get(space, ())),
        Recipe(on_conflict=conflict, **options),
        pods=lambda space, pod: labels(PODS[space, pod]),
        engine=engine,
    )
    output = b"".join(
        [pipeline.feed(b"".join(lines[at : at + 7])) for at in range(0, len(lines), 7)]
    )
    assert output + pipeline.finish() == expected.output
    assert counts(pipeline) == (expected.samples, expected.enriched, 0, expected.conflicts)
    if engine == "pure":
        assert len(pipeline.enricher._labels.names) <= MAX_NAMES + 3
