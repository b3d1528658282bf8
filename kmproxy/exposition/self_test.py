"""Self-test at start: checks that this Python reads the grammar's expressions as they are written.

Before 3.11.5 `re` reads possessive quantifiers wrongly (cpython gh-106052): the labels of one
namespace would go on the samples of another. A version number does not prove that a build is
right, so three known samples go through the engine. The test takes a millisecond. Most of that
compiles the expressions for the default label, which the daemon needs anyway.
"""

from __future__ import annotations

import sys

from kmproxy.exposition.enricher import Enricher

CASES = (
    # Another label's name that ends in `namespace`, read by the expressions of plain lines.
    (b'c{xnamespace="p"} 1\n', b'c{xnamespace="p"} 1\n'),
    # An escape and a blank: the whole grammar reads these lines.
    (b'c{a="\\"",namespace="p"} 1\n', b'c{a="\\"",namespace="p",team="t"} 1\n'),
    (b'c {namespace="p"} 1\n', b'c {namespace="p",team="t"} 1\n'),
)
"""Samples, each with its right output for the namespace `p`. Each goes wrong on Python 3.11.2."""


def self_test() -> str | None:
    """Returns why this Python cannot be used: a known sample gets wrong labels. Else None."""
    for sample, wanted in CASES:
        enricher = Enricher(lambda _: b',team="t"', names=frozenset({b"team"}))
        if enricher.feed(sample) + enricher.finish() != wanted:
            version = ".".join(map(str, sys.version_info[:3]))
            return (
                f"this Python, {version}, fails the self-test: it puts labels on the wrong "
                "samples; use Python 3.11.5 or newer (cpython gh-106052)"
            )
    return None
