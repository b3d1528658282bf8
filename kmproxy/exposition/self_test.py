"""Self-test at start: checks that the engines that will be used label known samples rightly.

Before 3.11.5 `re` reads possessive quantifiers wrongly (cpython gh-106052): the labels of one
namespace would go on the samples of another. A version number does not prove that a build is
right, so known samples go through the pure engine, and through the compiled engine if it is in
use: then the pure engine reads lines again. The test takes a millisecond. Most of that compiles the
expressions for the default label, which the daemon needs anyway.
"""

from __future__ import annotations

import sys

from kmproxy.exposition.engine import IN_USE, Engine
from kmproxy.exposition.pipeline import Pipeline, Recipe

CASES = (
    # Another label's name that ends in `namespace`, read by the expressions of plain lines.
    (b'c{xnamespace="p"} 1\n', b'c{xnamespace="p"} 1\n'),
    # An escape and a blank: the whole grammar reads these lines.
    (b'c{a="\\"",namespace="p"} 1\n', b'c{a="\\"",namespace="p",team="t"} 1\n'),
    (b'c {namespace="p"} 1\n', b'c {namespace="p",team="t"} 1\n'),
)
"""Samples, each with its right output for the namespace `p`. Each goes wrong on Python 3.11.2."""


def self_test() -> str | None:
    """Returns why an engine cannot be used: a known sample gets wrong labels. Else None."""
    engines: tuple[Engine, ...] = ("pure",) if IN_USE == "pure" else ("pure", IN_USE)
    return next((_PROBLEMS[engine] for engine in engines if not _is_right(engine)), None)


def _is_right(engine: Engine) -> bool:
    """Whether an engine gives the right output for each of the samples."""
    recipe = Recipe(names=frozenset({b"team"}))
    for sample, wanted in CASES:
        try:
            pipeline = Pipeline(lambda _: b',team="t"', recipe, engine=engine)
            output = pipeline.feed(sample) + pipeline.finish()
        except Exception:  # noqa: BLE001 - whatever it is, the engine cannot be used
            return False
        if output != wanted:
            return False
    return True


_PROBLEMS: dict[Engine, str] = {
    "pure": (
        f"this Python, {'.'.join(map(str, sys.version_info[:3]))}, fails the self-test: it puts "
        "labels on the wrong samples; use Python 3.11.5 or newer (cpython gh-106052)"
    ),
    "compiled": (
        "the compiled engine fails the self-test: it does not label known samples rightly; install "
        "kmproxy[engine] again, or set KMPROXY_ENGINE=pure"
    ),
}
