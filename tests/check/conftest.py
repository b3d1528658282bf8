"""Fixtures of the preflight tests: a pod with no more permissions than it needs."""

from __future__ import annotations

import pytest

from tests.support.preflight import SURPLUS, Preflight


@pytest.fixture
def preflight(cluster, tmp_path):
    """A pod with no more permissions than it needs to ask kubelets themselves."""
    for verb, resource in SURPLUS:
        cluster.api.deny(verb, resource)
    for review in ("tokenreviews", "subjectaccessreviews"):
        cluster.api.deny("create", review)
    for verb in ("list", "watch"):
        cluster.api.deny(verb, "nodes")
    cluster.api.deny("get", "nodes/pods")
    return Preflight(cluster, tmp_path / "sa")
