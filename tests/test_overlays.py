"""The overlays, run: each overlay's flags and roles, and no other right, before a cluster."""

from __future__ import annotations

import ssl

import pytest

from .test_manifests import OVERLAYS, built, of_kind, pod_of
from .tls import Authority

NAME = "kmproxy.kmproxy-system.svc"
PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
OPEN = sorted(set(OVERLAYS) - {"recommended"})


def grant(cluster, objects):
    """Let the cluster's RBAC be what an overlay brings, and take every other right away."""
    cluster.authority._rules = set()
    for one in of_kind(objects, "ClusterRole", "ClusterRoleBinding"):
        for subject in one.get("subjects", ()):
            if subject["name"] == "kmproxy":
                subject["namespace"] = "kmproxy"  # where the simulated cluster's account is
        cluster.authority.rbac.apply(one)


def flags(cluster, objects, root):
    """The arguments with what is at hand for addresses, and a folder for the pod's root."""
    given = []
    for each in pod_of(objects)[1]["args"]:
        if not each.startswith("--node-name-or-ip="):  # which the front has its own for
            here = each.replace("https://kubernetes.default.svc", cluster.api.url)
            given.append(here.replace("=/", f"={root}/"))
    return given


def mount(objects, root, authority):
    """Fill the mounted volumes: the overlay's own web config, and a certificate."""
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "web.yml" in one["data"]]
    (root / "etc/kmproxy/web").mkdir(parents=True)
    text = config["data"]["web.yml"].replace("/etc/", f"{root}/etc/")
    (root / "etc/kmproxy/web/web.yml").write_text(text, "utf-8")
    authority.write_pair(root / "etc/kmproxy/tls", host=NAME)
    (root / "var/lib/kmproxy").mkdir(parents=True)


@pytest.mark.parametrize("overlay", OPEN)
async def test_an_overlay_does_with_its_roles(front, cluster, tmp_path, overlay):
    """It reads the namespaces and the metrics of its nodes, with the rights that it brings."""
    objects = built(overlay)
    grant(cluster, objects)
    proxy = await front(*flags(cluster, objects, tmp_path))
    node = "" if overlay == "daemonset" else "/api/v1/nodes/node-b/proxy"
    status, text = await proxy.get(f"{node}/metrics/cadvisor")
    assert status == 200, text
    assert 'namespace="payments",team="payments"' in text


async def test_the_recommended_overlay_lets_in_prometheus_alone(front, cluster, tmp_path):
    """Over TLS, by the name of the Service, with a token that its roles let scrape."""
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
