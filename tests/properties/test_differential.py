"""The engines against the reference reader, on a million random lines.

The environment variable LINES_TO_COMPARE sets the number of lines. Without it the number is a
million where CI is set, and lower elsewhere. Every line is read in both modes, fed whole and
cut in two ways.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import pytest

from kmproxy.exposition.engine import available
from tests.support import lines
from tests.support.engines import ENGINES

# Coverage would make the same lines slow, a million times.
pytestmark = pytest.mark.no_cover

SEED = 20_240_601
LINES = int(
    os.environ.get("LINES_TO_COMPARE") or (1_000_000 if os.environ.get("CI") else 60_000)
)  # fmt: skip
BATCH = 10_000  # lines per task of a worker
WORKERS = 2


def compare(seed, count):
    """Compare all readings of `count` lines; returns the count of each outcome.

    A difference raises an AssertionError that shows how to reproduce it.
    """
    rng = random.Random(seed)
    seen = dict.fromkeys(("lines", "bytes", *lines.Reading._fields[1:]), 0)
    while seen["lines"] < count:
        limit = rng.choice(lines.LIMITS)
        text = lines.random_text(rng, rng.choice([1, 5, 40, 120]), limit)
        cuts = [], lines.random_cuts(rng, text, limit), lines.random_cuts(rng, text, limit)
        labels = {key: lines.LABELS[key] for key in lines.LABELS if rng.random() < 0.8}
        names = rng.choice([(), lines.ADDED, lines.NAMES[:2]])
        for overwrite in (False, True):
            options = {"labels": labels, "overwrite": overwrite, "limit": limit}
            expected = lines.by_reference(text, **options)
            options |= {"names": names}
            for engine, cut in product(available(), cuts):
                got = lines.by_engine(text, cut, engine=engine, **options)
                if got != expected:
                    raise AssertionError(
                        _difference(text, cut, options | {"engine": engine}, got, expected)
                    )
        seen["lines"] += text.count(b"\n") + (not text.endswith(b"\n"))
        seen["bytes"] += len(text)
        for field, number in zip(expected._fields[1:], expected[1:], strict=True):
            seen[field] += number
    return seen


def _difference(text, cuts, options, got, expected):
    """The facts that reproduce a difference, with the first line that shows it."""
    pairs = zip(got.output.split(b"\n"), expected.output.split(b"\n"), strict=False)
    first = next((pair for pair in pairs if pair[0] != pair[1]), "none: the counts differ")
    return (
        f"text {text!r}\ncuts {cuts}\noptions {options}\n"
        f"engine {got[1:]}, reference {expected[1:]} (samples, enriched, unparsed, conflicts)\n"
        f"first line that differs (engine, reference): {first}"
    )


@pytest.mark.timeout(1800)  # a minute of work in CI; a busy machine takes five
def test_a_million_lines(monkeypatch, capsys):
    """The engines that are there agree with the reader on mixed, broken and cut lines."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)  # the workers are to be fast, not measured
    batches = -(-LINES // BATCH)
    start = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(compare, SEED + batch, BATCH) for batch in range(batches)]
        seen = [task.result() for task in tasks]
    total = {field: sum(part[field] for part in seen) for field in seen[0]}
    with capsys.disabled():
        seconds = time.perf_counter() - start
        print(f"\n{total} compared in {seconds:.1f} s", end=" ")  # noqa: T201 - it is the proof
    assert total["lines"] >= LINES
    assert min(total.values()) > LINES // 100, "an outcome has become rare: lines.py is off"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("position", range(40))
def test_every_cut_of_a_small_text(position, engine):
    """One cut at each place, and two neighbouring cuts, change nothing."""
    text = (
        b'm{namespace="web"} 1\n# x\nm 1\n\nm{team="x" ,namespace="web"} 1\n'
        b'm{a="\\"",namespace="shop"} 2 # {a="b"} 1\nm{namespace="web",a="\n"} 1\nm{namespace="taken"} 1'
    )
    for limit in (lines.MAX_LINE, 32, 20):
        expected = lines.by_reference(text, limit=limit)
        for first in range(position * 4, min(position * 4 + 4, len(text) + 1)):
            for cuts in ([first], [first, first + 1], [first, first + limit]):
                assert lines.by_engine(text, cuts, limit=limit, engine=engine) == expected
