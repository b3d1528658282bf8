"""The memory of an enricher with other namespace labels, for many samples that all differ."""

from __future__ import annotations

import tracemalloc

import pytest

from kmproxy.exposition.general_enricher import MAX_EDITS, GeneralEnricher
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.sample_editor import MAX_PREFIXED, MAX_SHAPES

NAMES = [b"l%d" % number for number in range(8)]
LABELS = b"".join([b',%b="%b"' % (name, b"v" * 1000) for name in NAMES])


@pytest.mark.parametrize("borne", [(), NAMES], ids=["added", "replaced"])
def test_long_labels_are_remembered_within_bounds(borne):
    """Labels of 8 KB, added or in the place of the samples' own, whatever the samples name."""
    enricher = GeneralEnricher(
        lambda _: LABELS,
        NamespaceLabels((b"a", b"b")),
        names=frozenset(NAMES),
        on_conflict="overwrite",
    )
    own = b"".join([b',%b=""' % name for name in borne])
    held = 0
    tracemalloc.start()
    try:
        for block in range(40):
            lines = [b'm{a="x",b="%d-%d"%b} 1\n' % (block, number, own) for number in range(100)]
            enricher.feed(b"".join(lines))
            held = max(held, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert enricher.enriched == 4000
    assert held < MAX_EDITS + MAX_SHAPES + MAX_PREFIXED, f"{held} bytes are held"
