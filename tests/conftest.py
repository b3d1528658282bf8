"""What all tests share: outside programs are asked for by a marker, and skipped where missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


def pytest_collection_modifyitems(items):
    """Skip what needs a program that is not installed, and say which."""
    for item in items:
        for marker in item.iter_markers("program"):
            missing = [name for name in marker.args if shutil.which(name) is None]
            if missing:
                reason = f"not installed: {', '.join(missing)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def corpus():
    """The folder of recorded kubelet answers, where it is at hand."""
    if not CORPUS.is_dir():
        pytest.skip("the recorded kubelet answers do not ship with the project")
    return CORPUS
