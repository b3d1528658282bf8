"""Modules and libraries that are loaded only where they are needed."""

import subprocess
import sys

import pytest

from tests.support.modules import HEAVY, MODULES, PACKAGE

OPTIONAL = {
    *("config.http_client", "config.http_options", "config.proxies"),
    *("client.factory", "client.oauth2", "web.passwords"),
    *("config.upstreams", "sources.http", "daemon.upstreams", "check.upstreams"),
    *("check.preflight", "check.certificates", "demo", "simulator.cluster"),
}
"""Modules that neither a daemon without settings nor the command line loads."""


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("cli.main", {"argparse", "aiohttp", "prometheus_client", "kmproxy.daemon.daemon"}),
        ("daemon.daemon", {"kmproxy.cli.main", "kmproxy.enrich", "kmproxy.simulator.cadvisor"}),
    ],
)
def test_most_do_without(module, unwanted):
    """A new interpreter that imports the module has not paid for kubeconfigs, YAML or the demo."""
    assert set(MODULES) >= OPTIONAL
    code = f"import sys, kmproxy.{module}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = set(result.stdout.split())
    assert f"kmproxy.{module}" in loaded
    optional = {f"kmproxy.{each}" for each in OPTIONAL}
    assert sorted(loaded & (unwanted | optional | {*HEAVY, "yaml"})) == []
