"""The load, a small one: it measures what the README shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def shape(text):
    """The text with every number the same; a map of a few namespaces can cost less than nothing."""
    return re.sub(r"-?\d+(\.\d+)?", "N", text)


def test_a_small_load():
    """Every scrape succeeds, every change is seen, and the lines are those of the README."""
    shown = re.search(r"\$ make load\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[1]
    size = ["--nodes=6", "--interval=1", "--seconds=6", "--namespaces=60", "--changes=100"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.load", *size],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert shape(done.stdout) == shape(shown)
    assert ", 0 failed; " in done.stdout
    for seen, made in re.findall(r"\((\d+) of (\d+) changes\)", done.stdout):
        assert 0 < int(seen) == int(made)
