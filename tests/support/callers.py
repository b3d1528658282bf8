"""Callers of the metrics port: requests with tokens, and what the API server was asked."""

from __future__ import annotations

import yaml

from tests.support.documents import blocks


def readme_rbac(*names):
    """The RBAC objects of these names that docs/security.md shows."""
    shown = [each.text for each in blocks("docs/security.md") if each.text.startswith("apiVersion")]
    documents = [document for text in shown for document in yaml.safe_load_all(text)]
    found = [each for each in documents if each["metadata"]["name"] in names]
    assert {each["metadata"]["name"] for each in found} == set(names)
    for subject in [subject for each in found for subject in each.get("subjects", ())]:
        if subject["namespace"] == "kmproxy-system":
            subject["namespace"] = "kmproxy"  # where the simulated cluster's account is
    return found


def asked(cluster, path):
    """How many reviews of a kind the API server has seen."""
    return sum(record.path == path for record in cluster.api.requests)


def fetched(cluster):
    """Everything that was asked of a kubelet."""
    return [record for kubelet in cluster.kubelets.values() for record in kubelet.requests]


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
EVERYWHERE = {"nonResourceURLs": ["*"], "verbs": ["get"]}
