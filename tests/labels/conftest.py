"""Fixtures of the label tests: a label snapshot that is written soon after a change."""

from __future__ import annotations

import pytest

from kmproxy.labels import snapshot


@pytest.fixture
def soon(monkeypatch):
    """Writes follow changes at once."""
    monkeypatch.setattr(snapshot, "DELAY", 0.02)
