"""Readiness, the status page and kmproxy's own metrics show the outcome of scrapes."""

from __future__ import annotations

from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until


async def test_before_the_namespaces_are_loaded(front, cluster):
    """503 with the reason, and not ready, until the first list."""
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front(loaded=False)
    await until(lambda: _says(proxy, "500"))
    status, text = await proxy.get()
    assert status == 503
    assert "namespaces are not loaded yet: " in text
    assert await proxy.probe("/readyz") == (503, "namespaces are not loaded yet\n")
    assert (await proxy.probe("/healthz")) == (200, "ok\n")
    assert not cluster.kubelets["node-a"].requests
    cluster.api.recover()
    await until(lambda: _ready(proxy))
    assert (await proxy.get())[0] == 200


async def _says(proxy, word):
    return word in (await proxy.get())[1]


async def _ready(proxy):
    return (await proxy.probe("/readyz"))[0] == 200


async def test_the_status_page(front):
    """The status page shows the paths, the source and the labels."""
    proxy = await front("--label=team", "--label=owner.example.com/cost-center=cc", "--all-nodes")
    status, text = await proxy.get("/")
    assert status == 200
    for word in (
        "Ready",
        "7 namespaces",
        "owner.example.com/cost-center",
        "/metrics/cadvisor",
        "{node}",
    ):
        assert word in text


async def test_telemetry_paths(front):
    """The telemetry port has metrics, health and readiness only, for GET and HEAD."""
    proxy = await front()
    assert (await proxy.probe("/"))[0] == 404
    assert (await proxy.probe("/metrics/cadvisor"))[0] == 404
    async with proxy.session.post(proxy.telemetry_url + "/metrics") as response:
        assert response.status == 405


async def test_counts(front):
    """Samples, enriched samples, namespaces, durations and the build are counted."""
    proxy = await front()
    _, text = await proxy.get()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert await proxy.metric("kmproxy_samples_total") == len(lines)
    enriched = sum('team="' in line for line in lines)
    assert await proxy.metric("kmproxy_samples_enriched_total") == enriched > 0
    assert await proxy.metric("kmproxy_lines_unparsed_total") == 0
    assert await proxy.metric("kmproxy_namespaces") == 7
    assert await proxy.metric("kmproxy_namespaces_without_label", label="team") == 4
    assert 0 <= await proxy.metric("kmproxy_namespaces_sync_age_seconds") < 5
    assert (
        await proxy.metric("kmproxy_scrape_duration_seconds_count", path="/metrics/cadvisor") == 1
    )
    assert "kmproxy_build_info{" in (await proxy.probe("/metrics"))[1]


async def test_a_line_not_understood_does_not_end_the_scrape(front, cluster):
    """An unparsed line passes unchanged and is counted."""
    body = b'm{namespace="payments"} 1\nm{namespace="payments" 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    proxy = await front()
    expected = 'm{namespace="payments",team="payments"} 1\nm{namespace="payments" 1\n'
    assert await proxy.get() == (200, expected)
    assert await proxy.metric("kmproxy_lines_unparsed_total") == 1


async def test_a_fault_of_our_own_breaks_the_connection(front, monkeypatch):
    """Even an unexpected error ends a begun answer with a reset."""

    def fail(_):
        raise RuntimeError

    proxy = await front()
    monkeypatch.setattr("kmproxy.exposition.pipeline.Pipeline.finish", fail)
    answer, end = await proxy.raw(b"GET /metrics/cadvisor HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200")
    assert end == "reset"
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="error") == 1


async def test_a_dead_connection_is_not_an_error(front, cluster):
    """A kept connection that the kubelet closed is replaced without an error."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(Fault.CLOSE_AFTER, times=2)
    for _ in range(3):
        assert (await proxy.get("/metrics/probes"))[0] == 200
