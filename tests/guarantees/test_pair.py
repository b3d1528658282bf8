"""The measurement of two scrapers, a small one: it measures what docs/performance.md shows."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.documents import block


def shape(text):
    """The text with every number the same."""
    return re.sub(r"\d+(\.\d+)?", "N", text)


def test_a_small_pair():
    """The lines are those of the document, and with one read for both the kubelets get half."""
    shown = block("$ make pair").partition("\n")[2]
    size = ["--nodes=2", "--interval=3", "--rounds=2", "--pods=1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.pair", *size],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert shape(done.stdout) == shape(shown)
    assert re.findall(r"(\d+) scrapes, 0 failed, (\d+) requests", done.stdout) == [
        ("8", "8"),
        ("8", "4"),
    ]
