"""The preflight's connections: each row names the server, and the reason of a failure."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import trustme

from kmproxy.client.pin_file import SUFFIX
from kmproxy.client.pins import HEAD
from kmproxy.own_file import replace_own
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES
from kmproxy.simulator.kubelet import Fault, SimKubelet
from tests.support.preflight import message, results, to_add
from tests.support.rbac import binding, role
from tests.support.sites import ForwardProxy


@pytest.fixture
async def another_kubelet(cluster):
    """A function that replaces node-a's kubelet by one with another certificate."""
    running = []

    async def start(leaf):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        kubelet = SimKubelet(
            simulate_node("node-a", DEFAULT_NAMESPACES, pods_per_namespace=1, started=0.0),
            context,
            authenticate=cluster.authority.authenticate,
            authorize=cluster.authority.allows,
        )
        await kubelet.start()
        running.append(kubelet)
        await cluster.kubelets["node-a"].stop()
        cluster.kubelets["node-a"] = kubelet
        return kubelet

    yield start
    for kubelet in running:
        await kubelet.stop()


async def test_a_kubelet_that_answers_all_the_same(preflight, cluster):
    """A role for one node is unknown to the review: the row is a warning."""
    cluster.authority.deny("get", "nodes/metrics")
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    account = {"kind": "ServiceAccount", "name": "kmproxy", "namespace": "kmproxy"}
    cluster.authority.rbac.apply(
        role("node-a", rule | {"resourceNames": ["node-a"]}),
        binding("ClusterRole", "node-a", account),
    )
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"get nodes/metrics": "warning"}


@pytest.mark.parametrize(
    ("kind", "problem", "flag"),
    [
        ("names", "mismatch", "with --kubelet-server-name=node-x"),
        ("expired", "expired", "with --kubelet-insecure-tls"),
        ("foreign", "unable to get local issuer", "with --kubelet-ca-file=FILE"),
    ],
)
async def test_a_certificate_that_does_not_verify(
    preflight, cluster, another_kubelet, kind, problem, flag
):
    """The problem and the accepting flag are shown. No token was sent."""
    ca = trustme.CA() if kind == "foreign" else cluster._authorities
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    kubelet = await another_kubelet(
        ca.issue_cert(
            "node-x" if kind == "names" else "127.0.0.1",
            not_after=long_ago if kind == "expired" else None,
        )
    )
    report, shown = await preflight.run()
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert problem in message(report, "kubelet's certificate")
    assert any(each.startswith(flag) for each in report.certificate.accepted_by)
    assert report.certificate.certificate.issuer in shown
    assert kubelet.requests == []
    report, _ = await preflight.run("--kubelet-insecure-tls")
    assert results(report, but=("ok",)) == {"kubelet's certificate": "warning"}


async def test_what_would_be_pinned(preflight, cluster, another_kubelet, tmp_path):
    """The certificate and its pinning are shown. The pin file is unchanged."""
    path = tmp_path / f"labels{SUFFIX}"
    flags = ("--kubelet-tls-pin", f"--label-snapshot={tmp_path / 'labels'}")
    report, _ = await preflight.run(*flags)
    assert report.certificate.pin == "verified"
    assert message(report, "kubelet's certificate") == "verified"
    kubelet = await another_kubelet(trustme.CA().issue_cert("127.0.0.1"))
    report, shown = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {"kubelet's certificate": "warning"}
    digest = report.certificate.digest
    assert message(report, "kubelet's certificate").endswith(
        f"kmproxy would pin it, SHA-256 {digest}"
    )
    assert f"SHA-256   {digest}" in shown
    assert not path.exists()
    key = f"address:127.0.0.1:{kubelet.port}"
    replace_own(path, [HEAD + f"{key} {digest} 127.0.0.1\n".encode()])
    report, _ = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {}
    assert report.certificate.pin == "same"
    kubelet.requests.clear()
    replace_own(path, [other := HEAD + f"{key} {'a' * 64} 127.0.0.1\n".encode()])
    report, _ = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert f"restart kmproxy after removing its line from {path}" in message(report, "metrics")
    assert message(report, "kubelet's certificate") == message(report, "metrics")
    assert kubelet.requests == []
    assert path.read_bytes() == other


async def test_a_kubelet_that_is_down(preflight, cluster):
    """Permissions and namespaces are still reported."""
    await cluster.kubelets["node-a"].stop()
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert "cannot be reached: connection refused" in message(report, "metrics")


async def test_an_api_server_that_is_down(preflight, cluster):
    """Its facts are unknown, and the kubelet's certificate is still examined."""
    await cluster.api.stop()
    report, shown = await preflight.run()
    assert not report.ok
    found = results(report)
    assert found["access reviews"] == found["namespaces"] == "failed"
    assert found["list namespaces"] == found["get nodes/metrics"] == "skipped"
    assert found["kubelet's certificate"] == "ok"
    assert "connection refused" in message(report, "access reviews")
    assert to_add(shown) is None


async def test_a_token_that_is_not_taken(preflight, cluster):
    """Each server that refuses the token has a row. The token is not shown."""
    cluster.authority.revoke(cluster.token)
    report, _ = await preflight.run()
    assert "does not accept kmproxy's credentials (401)" in message(report, "access reviews")
    assert "does not accept kmproxy's credentials (401)" in message(report, "metrics")


@pytest.mark.parametrize("silent", ["reviews", "namespaces", "kubelet"])
async def test_nobody_waits_for_ever(preflight, cluster, silent):
    """A step ends at its time limit, and the next begins."""
    if silent == "kubelet":
        cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    elif silent == "namespaces":
        cluster.api.fail("list", ApiFault.HANG)
    else:
        cluster.api.fail("self review", ApiFault.HANG)
    report, _ = await preflight.run("--cache-sync-timeout=300ms", seconds=2.0)
    failed = {"kubelet": "metrics", "reviews": "access reviews"}.get(silent, silent)
    assert results(report)[failed] == "failed"
    limit = "0.3" if silent == "namespaces" else "2"
    assert message(report, failed) == f"no answer within {limit} s"
    assert report.certificate.verified


async def test_one_of_many_nodes(preflight, cluster):
    """With --all-nodes one node is tried and named: the configured one if it is a Node."""
    cluster.api.allow("get", "nodes")
    report, shown = await preflight.run("--all-nodes", "--node-name-or-ip=node-b")
    assert report.node == "node-b"
    assert "node-b, at 127.0.0.1" in shown
    assert len(cluster.kubelets["node-b"].requests) == 2
    cluster.api.allow("list", "nodes")
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=10.0.0.1")
    assert report.node == "node-a"
    assert report.ok


async def test_the_node_that_is_to_be_tried(preflight, cluster):
    """A Deployment's pod names its own node, so nodes are not listed."""
    cluster.api.allow("get", "nodes")
    status, out, err = await preflight.process(
        "--all-nodes", "--node-name-or-ip=localhost", KMPROXY_TRY_NODE="node-b"
    )
    assert (status, err) == (0, ""), out
    assert "node-b, at 127.0.0.1" in out
    assert len(cluster.kubelets["node-b"].requests) == 2
    status, out, _ = await preflight.process("--all-nodes", "--try-node=nobody")
    assert (status, "nobody" in out) == (1, True)


async def test_no_node_to_try(preflight, cluster):
    """The daemon need not list nodes. Without that right the user has to name a node."""
    cluster.api.allow("get", "nodes")
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=localhost")
    assert results(report, but=("ok",)) == {"node": "failed", "metrics": "skipped"}
    assert "name a node with --try-node" in message(report, "node")
    cluster.api.allow("list", "nodes")
    for name in ("node-a", "node-b"):
        cluster.api.store.remove("nodes", name)
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=localhost")
    assert message(report, "node") == "the cluster has no nodes"


async def test_a_node_that_cannot_be_found(preflight, cluster):
    """The configured node is still asked, as the daemon does for paths without a name."""
    report, _ = await preflight.run("--all-nodes")
    assert results(report, but=("ok",)) == {"get nodes": "failed", "node": "failed"}
    assert "resources [nodes]" in message(report, "node")
    assert report.metrics.enriched > 0


async def test_through_the_api_server(preflight, cluster):
    """The API server's certificate is examined, and the fetch uses the node proxy."""
    cluster.api.allow("get", "nodes/proxy")
    port = urlsplit(cluster.api.url).port
    flags = (f"--kube-apiserver=127.0.0.1:{port}", "--node-name-or-ip=node-b")
    report, _ = await preflight.run(*flags)
    assert report.ok
    assert results(report)["API server's certificate"] == "ok"
    assert results(report)["get nodes/metrics"] == "warning"
    assert report.metrics.url == f"{cluster.api.url}/api/v1/nodes/node-b/proxy/metrics/cadvisor"


async def test_plain_http(preflight, cluster):
    """The read-only port has no certificate and needs no permission."""
    kubelet = cluster.kubelets["node-a"]
    cluster.api.deny("get", "nodes/metrics")
    port = urlsplit(kubelet.plain_url).port
    report, _ = await preflight.run("--kubelet-scheme=http", f"--node-port={port}")
    assert report.ok
    assert results(report, but=("ok",)) == {"kubelet's certificate": "skipped"}


async def test_the_way_to_the_api_server(preflight, cluster, tmp_path):
    """The row names the proxy, and its source."""
    cluster.write_kubeconfig(tmp_path / "config")
    document = json.loads((tmp_path / "config").read_text())
    async with ForwardProxy() as forward:
        document["clusters"][0]["cluster"]["proxy-url"] = forward.url
        (tmp_path / "config").write_text(json.dumps(document))
        report, _ = await preflight.run(f"--kubeconfig={tmp_path / 'config'}")
    assert report.ok
    said = f"{cluster.api.url} by the proxy {forward.url} (proxy-url)"
    assert said in message(report, "identity")
