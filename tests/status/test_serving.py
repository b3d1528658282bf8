"""The page of a running daemon: what it shows after scrapes, to whom, and as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess

import msgspec
import pytest

from kmproxy.daemon.process import certificates
from kmproxy.simulator.kubelet import Fault
from kmproxy.status.model import Certificate, Status
from kmproxy.status.query import KEYS
from tests.conftest import until
from tests.support.documents import PAGES, blocks
from tests.support.exporters import Exporter, answer, config_file
from tests.support.pages import Page
from tests.support.tenants import bearer, grant

NODE = "/api/v1/nodes/{}/proxy/metrics/cadvisor"


async def facts(proxy, query="", **headers):
    """The facts of the page, as JSON."""
    status, text = await proxy.get(f"/{query}", Accept="application/json", **headers)
    assert status == 200, text
    return json.loads(text)


def rows(found, key="scrapes"):
    """Path and state of each row."""
    return {each["path"]: each["state"] for each in found[key]}


async def test_before_and_after_scrapes(front, cluster):
    """Waiting, well, failing while a kubelet fails, and well again with the last error."""
    proxy = await front()
    assert (await facts(proxy))["health"] == "waiting"
    await proxy.get("/metrics/cadvisor")
    found = await facts(proxy)
    assert (found["health"], rows(found)["/metrics"]) == ("well", "never")
    (row,) = [each for each in found["scrapes"] if each["state"] == "well"]
    assert row["path"] == "/metrics/cadvisor"
    assert 0 < row["labelled"] < row["samples"]
    assert row["samples"] == await proxy.metric("kmproxy_samples_total")
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=500)
    await proxy.get("/metrics/cadvisor")
    found = await facts(proxy)
    assert (found["health"], rows(found)["/metrics/cadvisor"]) == ("failing", "failing")
    assert "500" in Page((await proxy.get("/"))[1]).text.partition("Skip")[2]
    cluster.kubelets["node-a"].recover()
    await proxy.get("/metrics/cadvisor")
    found = await facts(proxy)
    (row,) = [each for each in found["scrapes"] if each["state"] == "well"]
    assert (found["health"], row["history"]) == ("well", "+-+")
    assert "500" in row["error"]


async def test_a_broken_scrape_and_a_client_that_leaves(front, cluster):
    """After the first byte, too, a failure is red; a HEAD and a wrong query are no scrapes."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(Fault.CUT_CONTENT_LENGTH, path="/metrics")
    await proxy.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    (row,) = [each for each in (await facts(proxy))["scrapes"] if each["path"] == "/metrics"]
    assert (row["state"], row["code"]) == ("failing", "broken")
    await proxy.raw(b"HEAD /metrics/probes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await proxy.get("/metrics/probes?nonsense=1")
    assert rows(await facts(proxy))["/metrics/probes"] == "never"


async def test_nodes_by_name(front, cluster):
    """The worst node first; an invented name leaves no trace."""
    proxy = await front("--all-nodes")
    cluster.kubelets["node-b"].fail(Fault.STATUS)
    for node in ("node-a", "node-b", "nonsense"):
        await proxy.get(NODE.format(node))
    found = await facts(proxy)
    assert [each["node"] for each in found["nodes"]["rows"]] == ["node-b", "node-a"]
    assert (found["health"], found["nodes"]["failing"], found["nodes"]["total"]) == (
        "failing",
        1,
        2,
    )
    shared = [each for each in found["scrapes"] if each["path"] == NODE.format("{node}")]
    assert shared[0]["error"] == "1 of 2 nodes failing, see Nodes"
    assert [each["node"] for each in (await facts(proxy, "?node=e-a"))["nodes"]["rows"]] == [
        "node-a"
    ]
    assert "nonsense" not in json.dumps(found)


async def test_upstreams(front, tmp_path):
    """An upstream has a row with its URL, without what its query may hide."""
    async with Exporter(answer(b'm{namespace="payments"} 1\n')) as exporter:
        entry = {"name": "ksm", "url": f"{exporter.url}?key=planted-secret"}
        proxy = await front(config_file(tmp_path, entry))
        await proxy.get("/upstreams/ksm/metrics")
        found = await facts(proxy)
    assert rows(found, "upstreams") == {"/upstreams/ksm/metrics": "well"}
    assert found["upstreams"][0]["source"] == exporter.url
    assert "planted-secret" not in json.dumps(found)


async def test_html_and_json_are_the_same_facts(front):
    """Both have the same headers against other sites, and JSON is what the model describes."""
    proxy = await front("--label=team", "--all-nodes", "--discovery")
    await proxy.get("/metrics/cadvisor")
    kinds = {}
    for accept in ("application/json", "text/html"):
        async with proxy.session.get(proxy.url + "/", headers={"Accept": accept}) as response:
            kinds[response.content_type] = await response.text()
            assert response.headers["Vary"] == "Accept"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert set(kinds) == {"application/json", "text/html"}
    status = msgspec.json.decode(kinds["application/json"], type=Status)
    text = Page(kinds["text/html"]).text
    for each in [*status.namespaces.rows, *status.settings]:
        assert each.name in text
    for each in status.paths:
        assert each in text


async def test_namespaces_follow_the_cluster(front, cluster):
    """After a label has moved, the page has the new owner."""
    proxy = await front()
    found = (await facts(proxy))["namespaces"]
    assert [(each["name"], each["count"]) for each in found["owners"]] == [
        ("frontend", 2),
        ("payments", 1),
    ]
    assert found["missing"][0]["count"] == 4
    cluster.api.namespaces.apply("no-team", {"team": "payments"})

    async def moved():
        names = (await facts(proxy, "?owner=payments"))["namespaces"]["rows"]
        return [each["name"] for each in names] == ["no-team", "payments"]

    await until(moved)
    assert (await facts(proxy))["namespaces"]["missing"][0]["count"] == 3


async def test_the_label_snapshot(front, tmp_path):
    """The page tells when it was written, and how often that failed."""
    proxy = await front(f"--label-snapshot={tmp_path / 'labels'}")

    async def written():
        snapshot = (await facts(proxy))["labels"]["snapshot"]
        return snapshot if snapshot["written"] is not None else None

    snapshot = await until(written)
    assert snapshot["file"] == str(tmp_path / "labels")
    assert 0 <= snapshot["written"] < 60
    assert (snapshot["read_errors"], snapshot["write_errors"]) == (0, 0)


def test_certificates(own_metrics):
    """The end of each certificate comes from the metric that warns of it."""
    assert certificates(own_metrics, 400.0) == []
    for name, end in (("serving", 1000.0), ("client_ca", 300.0)):
        own_metrics.web_file.certificate_expiry.labels(name).set(end)
    assert certificates(own_metrics, 400.0) == [
        Certificate(name="client_ca", ends_in=-100.0),
        Certificate(name="serving", ends_in=600.0),
    ]


async def test_hostile_labels_from_the_cluster(front, cluster):
    """Values of annotations are shown as text."""
    evil = '</td><script>alert(1)</script>\u202e" onload="x'
    namespace = {"metadata": {"name": "evil", "annotations": {"owner": evil}}}
    cluster.api.namespaces.put({"apiVersion": "v1", "kind": "Namespace", **namespace})
    proxy = await front("--annotation=owner")
    _, text = await proxy.get("/")
    seen = Page(text)
    assert seen.tags.count("script") == 1
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert "</td><script>alert(1)</script>\\u202e" in seen.text


@pytest.mark.program("curl")
async def test_the_command_of_the_documents(front):
    """It prints the facts as JSON, and each documented key and query is known."""
    proxy = await front("--label=team", "--annotation=cost-center", "--all-nodes")
    page = PAGES["docs/status-page.md"]
    (command,) = [each.text for each in blocks("docs/status-page.md")]
    process = await asyncio.create_subprocess_shell(
        command.replace("http://localhost:8080", proxy.url), stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert json.loads(printed)["health"] == "waiting"
    queries = re.findall(r"^\| `(\?.*?)` \|", page, re.MULTILINE)
    assert {each[1:].partition("=")[0] for each in queries} == set(KEYS)
    for query in queries:
        assert (await proxy.get(f"/{query}"))[0] == 200


async def test_only_get(front):
    """Other methods are refused, and wrong queries name the known keys."""
    proxy = await front()
    async with proxy.session.post(proxy.url + "/") as response:
        assert response.status == 405
    assert (await proxy.get("/?sort=x"))[0] == 400
    assert "q, owner" in (await proxy.get("/?x=1"))[1]


async def test_a_tenant_sees_its_own(front, cluster):
    """Its namespaces and its scrapes; no node, no settings, no sum over others."""
    grant(cluster, "payments")
    grant(cluster, user="root")
    proxy = await front("--authorization=tenant", "--all-nodes")
    for user in ("ann", "root"):
        await proxy.get("/metrics/cadvisor", **bearer(cluster, user))
    await proxy.get(NODE.format("node-b"), **bearer(cluster, "root"))
    found = await facts(proxy, **bearer(cluster))
    assert [each["name"] for each in found["namespaces"]["rows"]] == ["payments"]
    assert found["namespaces"]["total"] == 1
    assert (found["nodes"], found["settings"], found["process"]) == (None, None, None)
    own = [each for each in found["scrapes"] if each["state"] == "well"]
    assert [each["path"] for each in own] == ["/metrics/cadvisor"]
    assert own[0]["labelled"] == own[0]["samples"] > 0
    whole = await facts(proxy, **bearer(cluster, "root"))
    mine = [each for each in whole["scrapes"] if each["path"] == "/metrics/cadvisor"]
    assert [each["caller"] for each in mine] == ["", "ann"]
    assert mine[0]["samples"] > mine[1]["samples"]
    assert whole["namespaces"]["total"] == 7
    assert [each["node"] for each in whole["nodes"]["rows"]] == ["node-b"]
    assert (await proxy.get("/", **bearer(cluster, "eve")))[0] == 403
    assert (await proxy.get("/"))[0] == 401
