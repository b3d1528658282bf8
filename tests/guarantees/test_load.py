"""A small run of the load measurement that docs/performance.md shows."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.documents import block


def shape(text):
    """The text with every number equal. The map of a few namespaces can have a negative size."""
    return re.sub(r"-?\d+(\.\d+)?", "N", text)


def test_a_small_load():
    """Every scrape succeeds, every change is seen, and the lines match docs/performance.md."""
    shown = block("$ make load\n").partition("\n")[2]
    size = ["--nodes=6", "--interval=1", "--seconds=6", "--namespaces=60", "--changes=100"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.load", *size],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert shape(done.stdout) == shape(shown)
    assert ", 0 failed; " in done.stdout
    for seen, made in re.findall(r"\((\d+) of (\d+) changes\)", done.stdout):
        assert 0 < int(seen) == int(made)
