"""The compiled engine against the pure one, with all options in combination.

Run by `make fuzz TARGET=pipeline`. The input's layout is that of `pipeline_cases.pipeline_case`.
Coverage of the pure engine leads to the bytes: the compiled one has a fuzz target of its own in
engine/fuzz.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["kmproxy.exposition"]):
    from kmproxy.exposition.engine import available
    from tests.support import pipeline_cases


def main():
    """Hand the command line to libFuzzer."""
    if "compiled" not in available():
        sys.exit("the compiled engine is not installed: make engine")
    atheris.Setup(sys.argv, pipeline_cases.check_pipeline_case)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
