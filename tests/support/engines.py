"""The engines that tests run on, and the counts of a pipeline."""

from __future__ import annotations

import pytest

from kmproxy.exposition.engine import available

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name not in available(), reason="the compiled engine is not installed: make engine"
        ),
    )
    for name in ("pure", "compiled")
]
"""Both engines, as parameters of a test."""


def counts(pipeline):
    """Samples, enriched and unparsed ones, and conflicts."""
    found = pipeline.enricher
    return found.samples, found.enriched, found.unparsed, found.conflicts


def fed(pipeline, text, cut=None):
    """The output of a pipeline for a text, whole or in pieces of `cut` bytes."""
    step = cut or max(len(text), 1)
    pieces = [pipeline.feed(text[at : at + step]) for at in range(0, len(text), step)]
    return b"".join([*pieces, pipeline.finish()])
