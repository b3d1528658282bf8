"""The list-and-watch loop against an API server that does all it can to upset it."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext
from kmproxy.client.upstream import Upstream
from kmproxy.config.label_rules import LabelRule
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.backoff import PROBE_LIMIT
from kmproxy.kube.kubeconfig import Kubeconfig
from kmproxy.kube.object_list import SLICE
from kmproxy.kube.service_account import ServiceAccount
from kmproxy.kube.watch import RELIST
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.cluster import SimCluster
from tests.conftest import until


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def watching(cluster, directory, clock=None, also=(), identity=None, wait=0.01, drawn=None):
    """A watcher, its map and its metrics; it waits this part of the longest back-off.

    `drawn` is a list that gets the bound of each back-off.
    """

    def uniform(low, high):
        if drawn is not None and not low:
            drawn.append(high)
        return low or high * wait

    cluster.write_service_account(directory)
    clock = clock or asyncio.get_running_loop().time
    metrics = OwnMetrics()
    api = urlsplit(cluster.api.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    identity = identity or ServiceAccount(
        str(directory), environment, clock=clock, errors=metrics.credential_errors
    )
    tls = TlsContext(lambda: identity.trust, "CA", clock=clock, errors=metrics.credential_errors)
    labels = LabelMap([LabelRule("label", "team", "team")])
    async with open_session() as session:
        watcher = NamespaceWatcher(
            ApiServer(Upstream("API server", session, identity, tls), identity),
            labels,
            *also,
            metrics=metrics.watch,
            clock=clock,
            uniform=uniform,
        )
        task = asyncio.create_task(watcher.run())
        try:
            yield watcher, labels, metrics
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def becomes(labels, namespace, expected):
    """Wait until a namespace has just these labels."""

    async def same():
        return labels.lookup(namespace) == expected

    await until(same)


def requests(cluster):
    """The queries of lists and watches, in order."""
    queries = []
    for record in cluster.api.requests:
        parts = urlsplit(record.path)
        if parts.path == "/api/v1/namespaces":
            queries.append({key: values[0] for key, values in parse_qs(parts.query).items()})
    return queries


def restarts(metrics, reason):
    """How often a watch was begun anew for a reason."""
    return metrics.watch.restarts.labels(reason)._value.get()


async def test_list_then_watch(cluster, tmp_path):
    """One list of any version, one watch from the list's version, metadata only."""
    async with watching(cluster, tmp_path) as (watcher, labels, _):
        assert not watcher.loaded
        assert watcher.sync_age == math.inf
        await becomes(labels, b"payments", b',team="payments"')
        assert watcher.loaded
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')
    listed, watched = requests(cluster)
    assert listed["resourceVersion"] == "0"
    assert watched["watch"] == "true"
    assert watched["allowWatchBookmarks"] == "true"
    assert int(watched["resourceVersion"]) > 0
    assert 300 <= int(watched["timeoutSeconds"]) <= 600
    for record in cluster.api.requests:
        assert "as=PartialObjectMetadata" in record.headers["Accept"]


async def test_a_list_of_one_page(cluster, tmp_path):
    """The first list may come whole, as from a watch cache; others have their turn meanwhile."""
    for number in range(10 * SLICE):
        cluster.api.namespaces.apply(f"n{number}", {"team": f"t{number}"})
    seen = []
    async with watching(cluster, tmp_path) as (watcher, labels, _):
        collect = labels.collect

        def noted(listing, some):
            seen.append((len(some), turns))
            collect(listing, some)

        labels.collect = noted
        turns = 0
        while not watcher.loaded:
            await asyncio.sleep(0)
            turns += 1
        assert len(labels) == 10 * SLICE + 7
        assert labels.lookup(b"n999") == b',team="t999"'
    counts = [count for count, _ in seen]
    assert max(counts) <= SLICE
    assert sum(counts) == 10 * SLICE + 7
    assert len({turn for _, turn in seen}) == len(seen)  # a turn of ours between any two


async def test_a_list_of_many_pages(cluster, tmp_path):
    """The pages of a large list are put together, and shown only then."""
    async with watching(cluster, tmp_path) as (_, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        for number in range(1234):
            cluster.api.namespaces.apply(f"n{number}", {"team": f"t{number}"})
        cluster.api.namespaces.delete("payments")
        await cluster.api.stop()
        cluster.api.expire_history()
        await cluster.api.start()
        await becomes(labels, b"n1233", b',team="t1233"')
        assert len(labels) == 1234 + 6
        assert labels.lookup(b"payments") == b',team="payments"'  # remembered
    pages = [query for query in requests(cluster) if "limit" in query]
    assert [("continue" in each, each.get("resourceVersion")) for each in pages] == [
        (False, "0"), (False, None), (True, None), (True, None),
    ]  # fmt: skip


async def test_a_cut_watch_resumes(cluster, tmp_path):
    """A watch that is cut goes on from the last version: no second list, nothing missed."""
    async with watching(cluster, tmp_path) as (watcher, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        for number in range(3):
            cluster.api.break_watches()
            cluster.api.namespaces.apply("payments", {"team": f"t{number}"})
            await becomes(labels, b"payments", b',team="t%d"' % number)
        assert watcher.trouble is None
    assert sum("watch" not in query for query in requests(cluster)) == 1


async def test_a_cut_watch_of_an_hour(cluster, tmp_path):
    """Then a list is due, as after an hour of watches that end as they should."""
    clock = Clock()
    async with watching(cluster, tmp_path, clock) as (watcher, _, _):
        await watcher.wait_loaded()
        await until(lambda: settled(cluster.api.watches == 1))
        clock.now += RELIST
        cluster.api.break_watches()
        await until(lambda: settled(sum("watch" not in each for each in requests(cluster)) == 2))


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


async def test_bookmarks_confirm(cluster, tmp_path):
    """A bookmark says that nothing has changed, so the map is as fresh as it."""
    cluster.api.bookmark_interval = 0.05
    clock = Clock()
    async with watching(cluster, tmp_path, clock) as (watcher, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        clock.now += 50

        async def confirmed():
            return watcher.sync_age == 0

        await until(confirmed)
        assert (
            repr(watcher)
            == "<NamespaceWatcher <LabelMap 7 namespaces, 0 deleted and remembered>, synced 0s ago>"
        )


async def test_half_an_event_confirms_nothing(cluster, tmp_path):
    """Watches that are cut in mid-line, again and again, do not make the map seem fresh."""
    clock = Clock()
    async with watching(cluster, tmp_path, clock) as (watcher, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.fail("list", ApiFault.STATUS)
        cluster.api.fail("watch", ApiFault.CUT)
        cluster.api.break_watches()
        clock.now += 50.0
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await until(lambda: settled(restarts(metrics, "truncated") >= 3))
        assert watcher.sync_age == 50.0


async def test_an_event_that_never_comes_whole(cluster, tmp_path):
    """A list gets past what cuts every watch: a proxy's limit, say."""
    async with watching(cluster, tmp_path) as (_, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        cluster.api.fail("watch", ApiFault.CUT)
        cluster.api.break_watches()
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await becomes(labels, b"payments", b',team="x"')


@pytest.mark.parametrize("told_by", ["event", "list"])
async def test_deleted_namespaces_are_forgotten_in_time(cluster, tmp_path, told_by):
    """After five minutes, and not before, a deleted namespace has no labels."""
    cluster.api.bookmark_interval = 0.05
    clock = Clock()
    async with watching(cluster, tmp_path, clock) as (_, labels, _):
        await becomes(labels, b"payments", b',team="payments"')
        if told_by == "list":
            await cluster.api.stop()
        cluster.api.namespaces.delete("payments")
        if told_by == "list":
            cluster.api.expire_history()
            await cluster.api.start()
        await until(lambda: settled(len(labels) == 6))
        clock.now += 299
        await asyncio.sleep(1.1)  # the sweeper's own second
        assert labels.lookup(b"payments") == b',team="payments"'
        clock.now += 1
        await becomes(labels, b"payments", b"")


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


async def test_a_server_without_bookmarks(cluster, tmp_path, monkeypatch):
    """Where nothing happens and nothing says so, lists confirm the map: it is no outage."""
    monkeypatch.setattr("kmproxy.labels.namespaces.SILENCE", 0.1)
    cluster.api.bookmark_interval = 1e9
    clock = Clock()
    async with watching(cluster, tmp_path, clock, wait=1e9) as (watcher, labels, metrics):
        await becomes(labels, b"payments", b',team="payments"')
        clock.now += 500.0
        await until(lambda: settled(watcher.sync_age == 0.0))
        await until(lambda: settled(restarts(metrics, "timeout") >= 3))
        await until(lambda: settled(watcher.trouble is None and not watcher.away))


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


async def test_further_maps(cluster, tmp_path):
    """Each map sees every list, event and expiry: what one says the other says as well."""
    clock = Clock()
    other = LabelMap([LabelRule("label", "team", "other")])
    async with watching(cluster, tmp_path, clock, also=[other]) as (watcher, labels, _):
        await watcher.wait_loaded()

        def both(name):
            return labels.lookup(name), other.lookup(name)

        assert both(b"payments") == (b',team="payments"', b',other="payments"')
        cluster.api.namespaces.apply("payments", {"team": "x"})
        await until(lambda: settled(both(b"payments") == (b',team="x"', b',other="x"')))
        cluster.api.namespaces.delete("payments")
        await until(lambda: settled((len(labels), len(other)) == (6, 6)))
        assert both(b"payments") == (b',team="x"', b',other="x"')
        clock.now += 300.0
        await until(lambda: settled(both(b"payments") == (b"", b"")))


async def settled(condition):
    """A condition that is known at once."""
    return condition
