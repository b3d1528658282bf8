"""The label map follows every change of a namespace, from lists and from watches."""

from __future__ import annotations

import asyncio
import math

import pytest

from kmproxy.config.label_rules import LabelRule
from kmproxy.kube.object_list import SLICE
from kmproxy.kube.watch import RELIST
from kmproxy.labels.label_map import LabelMap
from kmproxy.simulator.answers import ApiFault
from tests.conftest import until
from tests.support.namespaces import Clock, becomes, requests, restarts, settled, watching


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
