"""Reviewers at the simulated API server, on a clock that stands still."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.auth.authorizer import KubernetesAuthorizer, RequestAttributes
from kmproxy.auth.reviewer import Reviewer
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import TOKEN_REVIEWS
from tests.support.rbac import binding, role

ANN = {"kind": "User", "name": "ann"}
PATHS = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
METRICS = RequestAttributes("/metrics")


class Desk:
    """Reviewers at the cluster's API server, all on one clock that stands still."""

    def __init__(self, cluster, api):
        self.cluster = cluster
        self.api = api
        self.now = 1000.0
        self.metrics = OwnMetrics()
        self.reviewer = self.open()

    def open(self, *audiences):
        return Reviewer(
            api=self.api,
            audiences=audiences,
            secret=b"k" * 32,
            clock=lambda: self.now,
            metrics=self.metrics.reviews,
        )

    def authorizer(self, *, by_path=True):
        return KubernetesAuthorizer(self.reviewer, by_path=by_path)

    def asked(self, path):
        """The number of reviews of a kind that the API server received."""
        return sum(record.path == path for record in self.cluster.api.requests)

    async def begun(self):
        """Waits until a review has begun."""
        while not self.reviewer._under_way:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)

    async def has_asked(self, tokens):
        return self.asked(TOKEN_REVIEWS) == tokens

    async def admit(self, token, place=METRICS, **how):
        authorizer = self.authorizer(**how)
        await authorizer.admit(await authorizer.identify([f"Bearer {token}"]), place)

    async def refusal(self, token, place=METRICS, **how):
        with pytest.raises(AccessError) as raised:
            await self.admit(token, place, **how)
        return raised.value


def bind(cluster, rule, subject=ANN, namespace=None):
    """Gives a user a right; returns the binding."""
    bound = binding("ClusterRole", "r", subject, namespace=namespace)
    cluster.authority.rbac.apply(role("r", rule), bound)
    return bound
