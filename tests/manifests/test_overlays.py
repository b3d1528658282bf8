"""The overlays, run in front of a cluster: each with its settings and exactly its roles."""

from __future__ import annotations

import asyncio
import shlex
import ssl
import sys
from pathlib import Path

import pytest

from tests.support.containers import NAME, environment, grant, mount
from tests.support.documents import PAGES, block
from tests.support.overlays import OVERLAYS, built, of_kind
from tests.support.tls import Authority

PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
OPEN = sorted(set(OVERLAYS) - {"recommended"})


def flags(cluster, objects, root):
    """The overlay's settings as flags, without those that the fixture sets."""
    own = {"KMPROXY_NODE_NAME_OR_IP", "KMPROXY_NODE_PORT", "KMPROXY_SERVICE_ACCOUNT_DIR"}
    return [
        f"--{name.removeprefix('KMPROXY_').lower().replace('_', '-')}={value}"
        for name, value in environment(cluster, objects, root).items()
        if name.startswith("KMPROXY_") and name not in {*own, "KMPROXY_TRY_NODE"}
    ]


@pytest.mark.parametrize("overlay", OPEN)
async def test_an_overlay_does_with_its_roles(front, cluster, tmp_path, overlay):
    """It reads namespaces and its nodes' metrics with the rights that it brings."""
    objects = built(overlay)
    grant(cluster, objects)
    proxy = await front(*flags(cluster, objects, tmp_path))
    node = "" if overlay == "daemonset" else "/api/v1/nodes/node-b/proxy"
    status, text = await proxy.get(f"{node}/metrics/cadvisor")
    assert status == 200, text
    assert 'namespace="payments",team="payments"' in text


async def test_the_recommended_overlay_lets_in_prometheus_alone(front, cluster, tmp_path):
    """Over TLS with the Service's name, and a token that may scrape."""
    objects, authority = built("recommended"), Authority()
    grant(cluster, objects)
    mount(objects, tmp_path, authority)
    proxy = await front(*flags(cluster, objects, tmp_path))
    url = f"https://127.0.0.1:{proxy.daemon.metrics_port}/metrics/cadvisor"
    trusting = ssl.create_default_context(cadata=authority.pem.decode())

    async def scrape(user):
        headers = {"Authorization": f"Bearer {cluster.authority.issue(user)}"} if user else {}
        async with proxy.session.get(
            url, headers=headers, ssl=trusting, server_hostname=NAME
        ) as response:
            return response.status, await response.text()

    status, text = await scrape(PROMETHEUS)
    assert status == 200, text
    assert 'namespace="payments",team="payments"' in text
    assert (await scrape(None))[0] == 401
    assert (await scrape("system:serviceaccount:payments:default"))[0] == 403
    answer, _ = await proxy.raw(b"GET /metrics HTTP/1.1\r\nHost: kmproxy\r\n\r\n")
    assert b"payments" not in answer
    assert (tmp_path / "var/lib/kmproxy").is_dir()


@pytest.mark.parametrize("attributes", ["path", "nodes/metrics"])
@pytest.mark.parametrize(
    ("overlay", "components", "path"),
    [
        ("recommended", ("podmonitor", "monitor-tls"), "/metrics/cadvisor"),
        (
            "deployment-direct",
            ("tls-secret", "authorization", "scrapeconfig", "monitor-tls"),
            "/api/v1/nodes/node-b/proxy/metrics/cadvisor",
        ),
    ],
)
async def test_the_token_of_a_monitor(
    front, cluster, tmp_path, attributes, overlay, components, path
):
    """The token scrapes the monitor's paths, for each kind of authorization."""
    objects, authority = built(overlay, components), Authority()
    grant(cluster, objects)
    mount(objects, tmp_path, authority)
    proxy = await front(
        *flags(cluster, objects, tmp_path), f"--authorization-attributes={attributes}"
    )
    token = cluster.authority.issue("system:serviceaccount:kmproxy-system:kmproxy-scraper")
    async with proxy.session.get(
        f"https://127.0.0.1:{proxy.daemon.metrics_port}{path}",
        headers={"Authorization": f"Bearer {token}"},
        ssl=ssl.create_default_context(cadata=authority.pem.decode()), server_hostname=NAME,
    ) as response:  # fmt: skip
        assert response.status == 200, await response.text()


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_check_in_the_pod(cluster, tmp_path, overlay):
    """The documented command passes in the container's environment, as with `kubectl exec`.

    It reads the daemon's settings: no row is failed, skipped or a warning.
    """
    objects = built(overlay)
    grant(cluster, objects)
    cluster.write_service_account(tmp_path / "sa")
    if overlay == "recommended":
        mount(objects, tmp_path, Authority())
    line = block("$ kubectl exec -n kmproxy-system").removeprefix("$ ").strip()
    before, _, command = line.partition(" -- ")
    kind = "ds" if of_kind(objects, "DaemonSet") else "deploy"
    assert before == "kubectl exec -n kmproxy-system ds/kmproxy"
    assert f"`{kind}/kmproxy`" in PAGES["docs/install.md"] or kind == "ds"
    program, *arguments = shlex.split(command)
    assert (program, arguments) == ("kmproxy", ["check"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", program, *arguments, cwd=Path(__file__).parents[2],
        env=environment(cluster, objects, tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, ""), out.decode()
    rows = out.decode().partition("\n✓ identity")[2].splitlines()[1:]
    assert len(rows) > 5
    assert {row[0] for row in rows} == {"✓"}, out.decode()
