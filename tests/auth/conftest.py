"""Fixtures of the authorization tests: the token of a caller that may get every path."""

from __future__ import annotations

import pytest

from tests.support.callers import EVERYWHERE, PROMETHEUS
from tests.support.rbac import binding, role


@pytest.fixture
def prometheus(cluster):
    """A token of Prometheus, which may get everything that is no resource."""
    cluster.authority.rbac.apply(
        role("all", EVERYWHERE),
        binding("ClusterRole", "all", {"kind": "User", "name": PROMETHEUS}),
    )
    return cluster.authority.issue(PROMETHEUS)
