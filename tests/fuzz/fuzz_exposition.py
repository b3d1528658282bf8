"""Compares the engine with the plain reading, on inputs that reach new code of either.

Run by `make fuzz`. A difference is written to the corpus, which tests/properties/test_corpus.py
reads from then on. The input's layout is that of `lines.fuzz_case`.
"""

from __future__ import annotations

import sys

import atheris

ENGINE = [
    "kmproxy.exposition.enricher",
    "kmproxy.exposition.grammar",
    "kmproxy.exposition.finder",
    "tests.support.reference",
]

with atheris.instrument_imports(include=ENGINE):
    from tests.support import lines


def main():
    """Hand the command line to libFuzzer."""
    atheris.Setup(sys.argv, lines.check_fuzz_case)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
