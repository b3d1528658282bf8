"""Scraped with a token that the API server reviews; others are refused."""

from __future__ import annotations

import copy
import re

import pytest

from .programs import eventually
from .stage import PROMETHEUS
from .test_door import readme_rbac

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOB = "kubernetes-cadvisor"
MEMORY = "container_memory_working_set_bytes"


async def scraped(stage, allowed, refused, why):
    """Let Prometheus scrape with `allowed` in its job; a second job, with `refused`, may not.

    `why` matches what Prometheus says of each target of the second.
    """
    config = stage.shipped("central")
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == JOB]
    config["scrape_configs"] = [
        job | allowed,
        copy.deepcopy(job) | refused | {"job_name": "refused"},
    ]
    prometheus = await stage.prometheus(config)
    await prometheus.up(JOB, 2)

    async def stored():
        found = await prometheus.query(f'{MEMORY}{{namespace="payments",container!=""}}')
        assert {labels["team"] for labels, _ in found} == {"payments"}
        assert {labels["kubernetes_io_hostname"] for labels, _ in found} == {"node-a", "node-b"}
        assert [value for _, value in await prometheus.query('up{job="refused"}')] == [0, 0]

    await eventually(stored)
    assert await prometheus.query(f'{MEMORY}{{job="refused"}}') == []
    targets = (await prometheus.api("targets", state="active"))["activeTargets"]
    errors = [each["lastError"] for each in targets if each["scrapePool"] == "refused"]
    assert len(errors) == 2
    assert all(re.search(why, error) for error in errors), errors


async def test_a_token_that_is_reviewed(stage, tmp_path):
    """By TokenReview and SubjectAccessReview, with the roles that the README shows."""
    cluster = stage.cluster
    cluster.authority.rbac.apply(*readme_rbac("kmproxy-reviews", "kmproxy-scrape"))
    await stage.deploy("deployment-direct", "--authorization=kubernetes")
    (tmp_path / "token").write_text(cluster.authority.issue(PROMETHEUS))
    (tmp_path / "other").write_text(cluster.authority.issue("system:serviceaccount:shop:web"))

    def bears(name):
        return {"authorization": {"credentials_file": str(tmp_path / name)}}

    await scraped(stage, bears("token"), bears("other"), "403")
    reviews = {each.path for each in cluster.api.requests if each.method == "POST"}
    assert reviews >= {
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    }
