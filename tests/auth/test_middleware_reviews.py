"""Reviews that are shared, slow or refused: each caller gets its answer within its time."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
import yaml

from kmproxy.auth.reviewer import Reviewer
from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from kmproxy.errors import ConfigError
from kmproxy.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS
from kmproxy.simulator.answers import ApiFault
from kmproxy.sources.slots import ConcurrencyLimit
from tests.conftest import until
from tests.support.callers import PROMETHEUS, Clock, asked
from tests.support.rbac import binding


async def test_rights_change(front, cluster, prometheus):
    """A new right holds after half a minute. A withdrawn right is gone after five minutes."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    ann = {"kind": "User", "name": "ann"}
    token = f"Bearer {cluster.authority.issue('ann')}"
    bound = binding("ClusterRole", "all", ann)
    bound["metadata"]["name"] = "of-ann"

    async def status():
        return (await proxy.get(Authorization=token))[0]

    assert await status() == 403
    cluster.authority.rbac.apply(bound)
    clock.now += 29.0
    assert await status() == 403
    clock.now += 1.0
    assert await status() == 200
    cluster.authority.rbac.delete(bound)
    clock.now += 299.0
    assert await status() == 200
    clock.now += 1.0
    assert await status() == 403


async def test_one_review_for_all_scrapes(front, cluster, prometheus):
    """Concurrent scrapes with one token cost one review of each kind."""
    proxy = await front("--authorization=kubernetes", "--max-concurrency=50")
    token = f"Bearer {prometheus}"
    answers = await asyncio.gather(*(proxy.get(Authorization=token) for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    assert (asked(cluster, TOKEN_REVIEWS), asked(cluster, ACCESS_REVIEWS)) == (1, 1)
    for kind in ("token", "access"):
        assert await proxy.metric("kmproxy_reviews_total", kind=kind, result="allowed") == 1


async def test_a_review_that_hangs_holds_up_nobody_else(front, cluster, prometheus):
    """A hanging review ends with its own scrape time, and takes no slot."""
    proxy = await front("--authorization=kubernetes", "--max-concurrency=1")
    known = f"Bearer {prometheus}"
    assert (await proxy.get(Authorization=known))[0] == 200
    cluster.api.fail("review", ApiFault.HANG)
    before = asked(cluster, TOKEN_REVIEWS)
    short = {"X_Prometheus_Scrape_Timeout_Seconds": "3"}
    hanging = [
        asyncio.create_task(proxy.get(Authorization=f"Bearer t{number}", **short))
        for number in range(5)
    ]
    await until(lambda: _reaches(cluster, before + 5))
    assert (await proxy.get(Authorization=known))[0] == 200
    assert not any(each.done() for each in hanging)
    for status, text in await asyncio.gather(*hanging):
        assert (status, text) == (500, "the API server has not reviewed your access within 2.7 s\n")


async def _reaches(cluster, count):
    return asked(cluster, TOKEN_REVIEWS) == count


async def test_the_time_of_reviews_is_the_scrapes(front, prometheus, monkeypatch):
    """The time of a review counts towards the scrape time."""
    proxy = await front("--authorization=kubernetes")
    may, taken, clock = Reviewer.may, ConcurrencyLimit.taken, asyncio.get_running_loop().time
    times = []

    async def slow(*question):
        times.append(clock())
        await asyncio.sleep(0.1)
        return await may(*question)

    def noted(slots, deadline, *asker):
        times.append(deadline)
        return taken(slots, deadline, *asker)

    monkeypatch.setattr(Reviewer, "may", slow)
    monkeypatch.setattr(ConcurrencyLimit, "taken", noted)
    status, _ = await proxy.get(
        Authorization=f"Bearer {prometheus}", X_Prometheus_Scrape_Timeout_Seconds="5"
    )
    assert status == 200
    began, deadline = times
    assert deadline <= began + 4.5


async def test_the_api_server_is_away(front, cluster, prometheus):
    """500 with the reason. Remembered reviews still hold, and all works after the outage."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    token = f"Bearer {prometheus}"
    assert (await proxy.get(Authorization=token))[0] == 200
    await cluster.api.stop()
    assert (await proxy.get(Authorization=token))[0] == 200
    clock.now += 60.0
    status, text = await proxy.get(Authorization=token)
    assert status == 500
    assert text.startswith("kmproxy cannot review your access: the API server at 127.0.0.1:")
    await cluster.api.start()
    assert (await proxy.get(Authorization=token))[0] == 200
    assert await proxy.metric("kmproxy_reviews_total", kind="token", result="failed") == 1


async def test_what_is_logged_and_counted(front, cluster, prometheus, caplog):
    """One log line per reason, not per request. It names the caller, and never a token."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    ann = cluster.authority.issue("ann\nwith a line\x1b[31m")
    with caplog.at_level(logging.DEBUG):
        for _ in range(20):
            await proxy.get()
            await proxy.get(Authorization="Bearer s3cret-and-wrong")
            await proxy.get(Authorization=f"Bearer {ann}")
        clock.now += 10.0
        await proxy.get()
    lines = [record.getMessage() for record in caplog.records if record.name == "kmproxy.auth"]
    assert [line.split(": ")[1] for line in lines] == ["401", "401", "403", "401"]
    assert "user 'ann\\nwith a line\\x1b[31m' may not get /metrics/cadvisor" in lines[2]
    assert lines[3].endswith("(19 more like this since the last one in the log)")
    for code, count in (("401", 41), ("403", 20)):
        path = {"path": "/metrics/cadvisor", "code": code}
        assert await proxy.metric("kmproxy_scrapes_total", **path) == count
    seen = caplog.text + (await proxy.probe("/metrics"))[1]
    seen += (
        repr(vars(proxy.daemon)) + (await proxy.get("/", Authorization=f"Bearer {prometheus}"))[1]
    )
    for token in ("s3cret-and-wrong", ann, prometheus, cluster.token):
        assert token not in seen
        assert token.rpartition(".")[2] not in seen


async def test_no_label_grows_with_what_is_asked(front):
    """Refused requests for paths that are not served share one series."""
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    for number in range(5):
        await proxy.get(f"/nothing/{number}")
        await proxy.get(f"/api/v1/nodes/n{number}/proxy/metrics")
    _, text = await proxy.probe("/metrics")
    series = re.findall(r'kmproxy_scrapes_total\{code="401",path="(.*)"\} 5.0', text)
    assert sorted(series) == ["/api/v1/nodes/{node}/proxy/metrics", "other"]


async def test_the_telemetry_port_tells_nothing_of_the_cluster(front, cluster):
    """Probes and own metrics are open to all, so they hold no node, namespace or team."""
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    token = f"Bearer {cluster.authority.issue('ann')}"
    await proxy.get("/api/v1/nodes/node-b/proxy/metrics", Authorization=token)
    for path in ("/metrics", "/readyz", "/healthz"):
        _, text = await proxy.probe(path)
        for word in ("node-a", "node-b", "payments", "frontend", "kube-system", "ann"):
            assert word not in text.replace("cannot", "")


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        (("--listen=:0",), "everybody who reaches this address can read every metric"),
        (("--listen=0.0.0.0:0",), "everybody who reaches this address can read every metric"),
        (("--listen=127.0.0.1:0",), None),
        (("--listen=localhost:0",), None),
        (("--listen=:0", "--authorization=kubernetes"), "send their tokens in plain text"),
        (("--listen=127.0.0.1:0", "--authorization=tenant"), None),
    ],
)
async def test_the_warning_at_the_start(front, caplog, flags, warned):
    """One line if any caller may scrape from elsewhere, or if tokens arrive unencrypted."""
    await front(*flags)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("--listen=")]
    assert len(lines) == (warned is not None)
    assert all(warned in line for line in lines)


async def test_reviews_need_an_encrypted_way(cluster, tmp_path):
    """Tokens are not sent to an API server over plain HTTP: exit 2 at the start."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": cluster.api.plain_url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    flags = [f"--kubeconfig={tmp_path / 'kubeconfig'}", "--authorization=kubernetes"]
    flags += ["--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0"]
    daemon = Daemon(read_config(flags)[0], {})
    try:
        with pytest.raises(ConfigError, match="sent in plain text to the API server at http://"):
            await daemon.start()
    finally:
        await daemon.stop()


async def test_a_client_that_leaves(front, cluster, prometheus):
    """A client that leaves during a review does not disturb the next one."""
    proxy = await front("--authorization=kubernetes")
    cluster.api.fail("review", ApiFault.HANG, times=1)
    leaving = asyncio.create_task(proxy.get("/metrics", Authorization=f"Bearer {prometheus}"))
    await until(lambda: _reaches(cluster, 1))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    other = cluster.authority.issue(PROMETHEUS)
    assert (await proxy.get(Authorization=f"Bearer {other}"))[0] == 200
