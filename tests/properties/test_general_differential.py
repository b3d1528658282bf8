"""Other namespace labels and pods against the plain reading, on lines at random.

How many lines is the environment variable LINES_TO_COMPARE.
"""

from __future__ import annotations

import os
import random
from itertools import product

import pytest

from kmproxy.exposition.engine import available
from tests.support import general_lines, lines

# Coverage would make the same lines slow, many times.
pytestmark = pytest.mark.no_cover

SEEDS = 20
LINES = int(
    os.environ.get("LINES_TO_COMPARE") or (400_000 if os.environ.get("CI") else 40_000)
)  # fmt: skip
ADDED = [*lines.ADDED, b"workload", b"n_team", b"e_team", b"tteam"]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_plain_reading_agrees(seed):
    """Whatever names the namespace, with pods and without: the same bytes, the same counts."""
    rng = random.Random(seed)
    done, seen = 0, [0] * 5
    while done < LINES // SEEDS:
        limit = rng.choice(lines.LIMITS)
        text = lines.random_text(rng, rng.choice([1, 5, 40, 120]), limit)
        done += text.count(b"\n") + 1
        setting, pods = general_lines.choices(rng)
        labels = {key: lines.LABELS[key] for key in lines.LABELS if rng.random() < 0.8}
        names = rng.choice([(), ADDED, lines.NAMES[:2]])
        for overwrite in (False, True):
            options = {
                "labels": labels, "overwrite": overwrite, "limit": limit,
                "setting": setting, "pods": pods,
            }  # fmt: skip
            expected = general_lines.by_reference(text, **options)
            seen = [total + count for total, count in zip(seen, expected[1:], strict=True)]
            options |= {"names": names}
            cuts_of_it = [], lines.random_cuts(rng, text, limit)
            for engine, cuts in product(available(), cuts_of_it):
                got = general_lines.by_engine(text, cuts, engine=engine, **options)
                assert got == expected, difference(
                    text, cuts, options | {"engine": engine}, got, expected
                )
    assert min(seen) > done // 500, f"an outcome has become rare: {seen}"


def difference(text, cuts, options, got, expected):
    """All that is needed to see a difference again, with the first line that shows it."""
    pairs = zip(got.output.split(b"\n"), expected.output.split(b"\n"), strict=False)
    first = next((pair for pair in pairs if pair[0] != pair[1]), "none: the counts differ")
    return (
        f"text {text!r}\ncuts {cuts}\noptions {options}\nengine {got[1:]}, "
        f"reference {expected[1:]}\nfirst line that differs (engine, reference): {first}"
    )
