"""Small expositions with their expected outputs, and inputs that the fuzz run found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import lines, pipeline_cases

HERE = Path(__file__).parent
INPUTS = sorted(
    path for path in (HERE / "corpus").glob("*.prom") if path.stem.find(".") < 0
)  # fmt: skip
LABELS = {
    b"payments": [(b"team", b'"payments"')],
    b"web": [(b"team", b'"front"'), (b"tier", b'"a\\"b"')],
    b'o"dd': [(b"team", b'"odd"')],
    b"bare": [],
    b"": [(b"team", b'"never"')],
}
# Samples, enriched with `keep` and with `overwrite`, not understood, conflicts.
COUNTS = {
    "comments": (0, 0, 0, 0, 0),
    "conflicts": (9, 3, 7, 0, 6),
    "escapes_and_bytes": (7, 5, 5, 0, 0),
    "every_other_byte": (6, 6, 6, 0, 1),
    "metric_in_braces": (5, 3, 5, 0, 2),
    "no_labels_to_add": (5, 0, 0, 0, 0),
    "not_understood": (2, 2, 2, 18, 0),
    "only_namespace_counts": (9, 0, 0, 0, 0),
    "openmetrics": (3, 3, 3, 0, 0),
    "right_after_namespace": (3, 3, 3, 0, 0),
}


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("mode", ["keep", "overwrite"])
def test_expected_twins(engine, path, mode):
    """Each file gives its expected output: whole, byte by byte, and by the reference reader."""
    text = path.read_bytes()
    expected = path.with_suffix(f".{mode}.prom").read_bytes()
    samples, kept, overwritten, unparsed, conflicts = COUNTS[path.stem]
    enriched = kept if mode == "keep" else overwritten
    twin = lines.Reading(expected, samples, enriched, unparsed, conflicts)
    options = {"labels": LABELS, "overwrite": mode == "overwrite"}
    for cuts in ([], range(len(text)), range(0, len(text), 13)):
        assert lines.by_engine(text, cuts, engine=engine, **options) == twin
    assert lines.by_reference(text, **options) == twin


def test_the_corpus_is_complete():
    """Every file has its counts and both expected outputs. No other files are there."""
    names = {path.stem for path in INPUTS}
    assert names == COUNTS.keys()
    twins = {f"{name}{mode}.prom" for name in names for mode in ("", ".keep", ".overwrite")}
    assert {path.name for path in (HERE / "corpus").iterdir()} == twins


@pytest.mark.parametrize(
    "path", sorted((HERE.parent / "fuzz" / "corpus").iterdir()), ids=lambda path: path.name
)
def test_fuzz_corpus(path):
    """The engines and the reference reader agree on every fuzz input."""
    lines.check_fuzz_case(path.read_bytes())
    pipeline_cases.check_pipeline_case(path.read_bytes())
