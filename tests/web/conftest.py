"""Fixtures of the listener tests: a certificate authority with its files."""

from __future__ import annotations

import pytest

from tests.support.tls import Authority


@pytest.fixture
def ours(tmp_path):
    """Our authority, with a pair in the directory, and a CA file of it for clients."""
    authority = Authority()
    authority.write_pair(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    return authority
