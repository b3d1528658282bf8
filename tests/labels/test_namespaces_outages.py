"""The label map is right again after outages, a lost history or a restored backup."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.kube.backoff import PROBE_LIMIT
from kmproxy.kube.kubeconfig import Kubeconfig
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.cluster import SimCluster
from tests.conftest import until
from tests.support.namespaces import Clock, becomes, requests, restarts, settled, watching


@pytest.mark.parametrize("expired_as", ["event", "status"])
async def test_an_expired_version(cluster, tmp_path, expired_as):
    """410, as a status or as an ERROR event: a new list, of the newest version."""
    cluster.api.expired_as = expired_as
    async with watching(cluster, tmp_path) as (_, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.break_watches()
        cluster.api.namespaces.apply("payments", {"team": "x"})
        cluster.api.namespaces.delete("monitoring")
        cluster.api.expire_history()
        await becomes(labels, b"payments", b',team="x"')
        assert len(labels) == 6
        assert restarts(metrics, "Expired") + restarts(metrics, "Gone") >= 1
    lists = [query for query in requests(cluster) if "watch" not in query]
    assert lists[-1].get("resourceVersion", "") == ""


@pytest.mark.parametrize("expired_as", ["event", "status"])
async def test_an_expired_version_after_an_outage(cluster, tmp_path, expired_as):
    """It was probed in short steps; its 410 is followed by a list without another delay."""
    cluster.api.expired_as = expired_as
    drawn = []
    async with watching(cluster, tmp_path, drawn=drawn) as (_, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        await cluster.api.stop()
        await until(lambda: settled(len(drawn) >= 10))
        cluster.api.namespaces.apply("payments", {"team": "x"})
        cluster.api.expire_history()
        before = len(drawn)
        await cluster.api.start()
        await becomes(labels, b"payments", b',team="x"')
        assert restarts(metrics, "Expired") + restarts(metrics, "Gone") == 1
        assert set(drawn[before:]) <= {PROBE_LIMIT}  # of an attempt that was refused meanwhile
    assert [query.get("resourceVersion") for query in requests(cluster) if "watch" not in query] == [
        "0", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "needs", "reason"),
    [
        (ApiFault.STATUS, {"status": 500}, "InternalError"),
        (ApiFault.STATUS, {"status": 429, "reason": "TooManyRequests"}, "TooManyRequests"),
        (ApiFault.ERROR_EVENT, {"status": 500, "reason": "InternalError"}, "InternalError"),
        (ApiFault.GARBAGE, {}, "cut"),
        (ApiFault.END, {}, "short"),
        (ApiFault.CUT, {}, "truncated"),
    ],
)
async def test_watches_that_fail(cluster, tmp_path, fault, needs, reason):
    """Each failure of a watch is counted by its reason, and got over without a gap."""
    cluster.api.fail("watch", fault, times=2, **needs)
    async with watching(cluster, tmp_path) as (_, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
        await until(lambda: counted(metrics, reason))


async def counted(metrics, reason):
    """Whether a watch was begun anew for a reason."""
    return restarts(metrics, reason) >= 1


async def test_retry_after_is_kept_to(cluster, tmp_path):
    """A server that asks for a pause of a second gets it."""
    cluster.api.fail("list", ApiFault.STATUS, times=1, status=429, retry_after=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with watching(cluster, tmp_path) as (_, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        assert loop.time() - began >= 1.0


async def test_a_very_long_event(cluster, tmp_path):
    """An event line of megabytes is read like any other."""
    async with watching(cluster, tmp_path) as (_, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.namespaces.pad("no-team", 3_000_000)
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
        assert not [
            sample
            for metric in metrics.watch.restarts.collect()
            for sample in metric.samples
            if sample.value and sample.name.endswith("_total")
        ]


async def test_an_api_server_that_goes_away(cluster, tmp_path):
    """The last known labels stay; the age grows; what changed meanwhile is caught up."""
    async with watching(cluster, tmp_path) as (watcher, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        await cluster.api.stop()
        await until(lambda: troubled(watcher))
        age = watcher.sync_age
        assert labels.lookup(b"payments") == b',team="payments"'
        assert watcher.loaded
        await asyncio.sleep(0.05)
        assert watcher.sync_age > age
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await cluster.api.start()
        await becomes(labels, b"payments", b',team="x"')
        assert watcher.trouble is None


async def test_an_api_server_that_is_back(cluster, tmp_path):
    """That the watch is answered ends the trouble; only what it says confirms the map."""
    clock = Clock()
    async with watching(cluster, tmp_path, clock) as (watcher, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        await cluster.api.stop()
        await until(lambda: troubled(watcher))
        clock.now += 50.0
        await cluster.api.start()
        await until(lambda: settled(watcher.trouble is None and not watcher.away))
        assert watcher.sync_age == 50.0


async def troubled(watcher):
    """Whether something has gone wrong."""
    return watcher.trouble is not None


async def lose_history(cluster, labels):
    """Move a namespace often, and put back a backup of before; in between wait for the labels."""
    await becomes(labels, b"payments", b',team="payments"')
    for number in range(60):
        cluster.api.namespaces.apply("payments", {"team": f"t{number}"})
    await becomes(labels, b"payments", b',team="t59"')
    cluster.api.restore_backup()


async def test_a_restored_backup(cluster, tmp_path):
    """An API server whose history went back: a version too large, and a new list."""
    async with watching(cluster, tmp_path) as (_, labels, _):
        await lose_history(cluster, labels)
        await becomes(labels, b"payments", b',team="payments"')


async def test_a_restored_backup_without_a_sign(cluster, tmp_path, monkeypatch):
    """A watch from a version that is still to come is answered, and silent: a list finds out."""
    cluster.api.future_watch_waits = True
    async with watching(cluster, tmp_path) as (watcher, labels, metrics):
        await lose_history(cluster, labels)
        monkeypatch.setattr("kmproxy.labels.namespaces.SILENCE", 0.5)
        cluster.api.bookmark_interval = 0.05  # which come now, but not before that version
        await becomes(labels, b"payments", b',team="payments"')
        assert restarts(metrics, "timeout") == 2
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
        assert watcher.trouble is None


async def test_a_watch_that_falls_silent(cluster, tmp_path, monkeypatch):
    """A connection that died in mid-watch is given up, and nothing is missed."""
    monkeypatch.setattr("kmproxy.labels.namespaces.SILENCE", 1.0)
    cluster.api.bookmark_interval = 0.1
    async with watching(cluster, tmp_path) as (watcher, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.fail("watch", ApiFault.SILENT, times=1)
        cluster.api.break_watches()
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
        assert restarts(metrics, "timeout") == 1
        assert watcher.trouble is None
    assert sum("watch" not in query for query in requests(cluster)) == 1


@pytest.mark.parametrize("listing", [True, False])
async def test_an_answer_that_is_framed_wrongly(cluster, tmp_path, monkeypatch, listing):
    """What a proxy on the way writes into a list or a watch that has begun ends it."""
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.05)
    cluster.api.fail("list" if listing else "watch", ApiFault.MISFRAMED, times=1)
    async with watching(cluster, tmp_path) as (watcher, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
        assert watcher.trouble is None
        why = {"upstream": "apiserver", "reason": "truncated"}
        errors = metrics.registry.get_sample_value("kmproxy_upstream_errors_total", why)
    assert errors == 1


@pytest.mark.parametrize("found_by", ["watch", "scrape"])
async def test_a_kubeconfig_that_leads_to_another_cluster(cluster, tmp_path, found_by):
    """Its namespaces are listed anew: they are others', of the same names and versions."""
    clock, path = Clock(), tmp_path / "config"
    cluster.api.bookmark_interval = 0.05
    cluster.write_kubeconfig(path)
    identity = await Kubeconfig.load(str(path), clock=clock, errors=OwnMetrics().credential_errors)
    async with (
        SimCluster(nodes=()) as other,
        watching(cluster, tmp_path, clock, identity=identity) as (_, labels, metrics),
    ):
        await becomes(labels, b"payments", b',team="payments"')
        await until(lambda: settled(cluster.api.watches == 1))
        other.api.namespaces.apply("payments", {"team": "x"})
        while (version := other.api.store.version) <= cluster.api.store.version:
            node = {"metadata": {"name": "n", "labels": {"at": str(version)}}}
            other.api.store.put("nodes", node)  # so that a watch could resume, in silence
        other.write_kubeconfig(path)
        clock.now += TOKEN_AGE
        if found_by == "watch":
            cluster.api.break_watches()
        else:
            await identity.authorization()
        await becomes(labels, b"payments", b',team="x"')
        other.api.namespaces.apply("payments", {"team": "y"})
        await becomes(labels, b"payments", b',team="y"')
        assert restarts(metrics, "moved") == 1
