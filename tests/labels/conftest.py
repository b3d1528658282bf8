"""Fixtures of the label tests: a label snapshot that is written soon after a change."""

from __future__ import annotations

import pytest

from kmproxy.labels import snapshot


@pytest.fixture
def soon(monkeypatch):
    """Writes the snapshot right after each change."""
    monkeypatch.setattr(snapshot, "DELAY", 0.02)
