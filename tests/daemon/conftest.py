"""Fixtures for the daemon's clients: they open the clients, and show the credential received."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import yaml

from kmproxy.cli.read import read_config
from kmproxy.daemon.clients import open_clients
from tests.support.kubelet_reader import READER


@pytest.fixture
def opened(cluster, tmp_path, clock, own_metrics):
    """A function that opens the clients of a pod that was given flags, and a `kubelet` section."""
    cluster.write_service_account(tmp_path)
    api, kubelet = urlsplit(cluster.api.url), cluster.kubelets["node-a"]
    environment = {
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    defaults = (f"--service-account-dir={tmp_path}", f"--node-port={kubelet.port}")

    def open_them(*flags, environ=None, **section):
        if section:
            (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": section}))
            flags = (*flags, f"--config={tmp_path / 'k.yaml'}")
        config, _ = read_config([*defaults, *flags])
        return open_clients(config, environment | (environ or {}), clock=clock, metrics=own_metrics)

    return open_them


@pytest.fixture
def reader(cluster):
    """A token of somebody else, who may read the kubelets' metrics."""
    cluster.authority.allow("get", "nodes/metrics", user=READER)
    return cluster.authority.issue(READER)


@pytest.fixture
def asked(cluster):
    """A function: the header by which node-a was last told who asks."""

    def last():
        return cluster.kubelets["node-a"].requests[-1].headers.get("Authorization")

    return last
