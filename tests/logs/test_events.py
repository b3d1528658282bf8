"""`kmproxy logs --events`: each event once, under the owner of the moment."""

import asyncio

import pytest

from kmproxy.simulator.answers import ApiFault
from tests.support.event_objects import has, notes, stamp
from tests.support.event_senders import senders_of
from tests.support.loki import got, until

SPACES = {"shop": {"team": "red"}, "blog": {"team": "blue"}, "default": {}, "kmproxy": {}}


@pytest.fixture
async def senders(tmp_path, loki, monkeypatch):
    """A cluster, and processes that send its events."""
    async with senders_of(SPACES, tmp_path, loki, monkeypatch) as made:
        yield made


async def test_a_line_and_its_labels(senders, loki):
    """The stream is that of the namespace; the tenant too; the time is the last observation."""
    sender = await senders.start("--tenant-label=team", "--default-tenant=other")
    senders.put("a", "first", age=5.0)
    senders.put("n", "of a node", namespace="default", regarding={"kind": "Node", "name": "n1"})
    await has(loki, "first", "of a node")
    moment = stamp(1.0)
    series = {"count": 7, "lastObservedTime": moment}
    senders.cluster.api.namespaces.apply("shop", {"team": "green"})
    await until(lambda: sender.daemon._labels.samples.find(b"shop") == b',team="green"')
    senders.put("a", "again", series=series)
    await has(loki, "again")
    first, node, again = sorted(loki.entries, key=lambda each: each.time)[:1] + [
        next(each for each in loki.entries if each.text.endswith(f'msg="{note}"'))
        for note in ("of a node", "again")
    ]
    assert first.stream == {"namespace": "shop", "stream": "event", "team": "red"}
    assert (first.tenant, first.metadata) == ("red", {})
    assert node.stream == {"namespace": "default", "stream": "event"}
    assert node.tenant == "other"
    assert again.stream == {"namespace": "shop", "stream": "event", "team": "green"}
    assert again.tenant == "green"
    assert " count=7 " in again.text
    assert f"{again.time / 1e9:.6f}"[-6:] == moment[-7:-1]
    page = await got(sender.daemon.page_port, "/")
    assert "sent by this process" in page
    assert sender.value("event_lines_read_total") == 3
    assert sender.value("events_leader") == 1
    await until(lambda: sender.value("events_lag_seconds") == 0)
    assert "shop" not in sender.metrics


async def test_a_namespace_that_is_not_known_yet(senders, loki):
    """Its lines wait, and others do not wait for them."""
    sender = await senders.start()
    senders.put("a", "early", namespace="late")
    senders.put("b", "other")
    await has(loki, "other")
    assert notes(loki) == ["other"]
    assert sender.value("lines_waiting") == 1
    senders.cluster.api.namespaces.apply("late", {"team": "new"})
    await has(loki, "early")
    assert loki.entries[-1].stream["team"] == "new"


async def test_the_first_start(senders, loki):
    """Events that are there are sent in pages, but not those older than --max-age."""
    for number in range(1200):
        senders.put(f"e{number}", f"n{number}", age=number / 100)
    senders.put("old", "too old", age=90.0)
    sender = await senders.start("--max-age=1m")
    await has(loki, *(f"n{number}" for number in range(1200)))
    assert len(notes(loki)) == 1200
    assert sender.value("lines_lost_total", reason="too_old") == 1
    assert sender.value("lines_lost_total", reason="history") == 0
    pages = senders.asked(r"/events\?.*limit=500")
    assert len(pages) == 3  # after one event
    assert all("continue=" in each for each in pages)


async def test_a_restart(senders, loki):
    """The Lease is let go, and the next process goes on at once, without a list."""
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    await first.stop()
    assert senders.lease["spec"]["holderIdentity"] == ""
    for number in range(50):
        senders.put(f"b{number}", f"meanwhile {number}")
    senders.put("a", "changed", count=2)
    asked = len(senders.asked(r"/events\?.*limit=500"))
    second = await senders.start()
    await has(loki, "changed", *(f"meanwhile {number}" for number in range(50)))
    assert loki.repeated() == {}
    assert senders.asked(r"/events\?.*limit=500")[asked:] == []
    assert second.value("events_terms_total", how="released") == 1
    assert second.value("lines_lost_total", reason="history") == 0


async def test_the_history_is_gone(senders, loki):
    """A list follows: changes are sent once, and the gap is counted."""
    sender = await senders.start()
    senders.put("a", "one")
    senders.put("b", "two")
    await has(loki, "one", "two")
    senders.cluster.api.fail("watch events", ApiFault.STATUS, status=503)
    senders.cluster.api.break_watches()
    await until(lambda: sender.shipper.options.trouble)
    assert sender.value("events_lag_seconds") > 0
    senders.put("b", "three", count=2)
    senders.put("c", "four")
    senders.cluster.api.expire_history()
    senders.cluster.api.recover()
    await has(loki, "three", "four")
    senders.put("d", "five")
    await has(loki, "five")
    assert loki.repeated() == {}
    assert sender.value("lines_lost_total", reason="history") == 1


async def test_a_list_that_breaks(senders, loki):
    """The next one leaves out the lines that came before."""
    for number in range(900):
        senders.put(f"e{number:03}", f"n{number}")
    senders.cluster.api.fail("list events", ApiFault.CUT, times=3)
    sender = await senders.start()
    await has(loki, *(f"n{number}" for number in range(900)))
    assert loki.repeated() == {}
    assert len(loki.entries) == 900
    assert sender.value("event_lines_read_total") == 900


async def test_a_restored_backup(senders, loki):
    """The versions begin anew: events of later times are sent, and a gap is counted."""
    sender = await senders.start()
    senders.put("a", "one", age=60.0)
    await has(loki, "one")
    senders.cluster.api.take_backup()
    for number in range(300):  # so that the versions do not pass the position at once
        senders.put(f"b{number}", f"gone {number}", age=50.0)
    await has(loki, *(f"gone {number}" for number in range(300)))
    senders.cluster.api.restore_backup()
    senders.put("c", "after", age=1.0)
    await has(loki, "after")
    assert loki.repeated() == {}
    assert sender.value("lines_lost_total", reason="history") == 1


async def test_hostile_events(senders, loki):
    """Halves of surrogate pairs, control characters, and notes of a megabyte, in a list and after."""
    hostile = "\ud800 \x1b[2J\x00\u202e ' x=y"
    senders.put("a", hostile)
    senders.put("b", "x" * 1_000_000)
    sender = await senders.start("--max-line-bytes=4KiB", "--batch-bytes=64KiB")
    await until(lambda: len(loki.entries) == 2)
    senders.put("c", hostile, reason='a="b" type=forged')
    senders.put("d", "é" * 1_000_000)
    senders.put("e", "the end")
    await has(loki, "the end")
    assert len(loki.entries) == 5
    assert all(each.text.isprintable() and len(each.text.encode()) <= 4096 for each in loki.entries)
    assert r'reason="a=\"b\" type=forged" type=Normal' in loki.entries[2].text
    assert sender.value("lines_cut_total") == 2
    assert sender.value("lines_lost_total", reason="unreadable") == 0


async def test_an_event_that_cannot_be_read(senders, loki):
    """It is counted and left out; the others come."""
    sender = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    senders.put("b", 5)
    senders.put("c", "three")
    await has(loki, "three")
    assert notes(loki) == ["one", "three"]
    assert sender.value("lines_lost_total", reason="unreadable") == 1


async def test_the_endpoint_is_away(senders, loki):
    """The list is not read on when the memory is used up. Then all come, each once."""
    for number in range(3000):
        senders.put(f"e{number}", f"{number} {'x' * 900}")
    loki.status = 503
    sender = await senders.start("--max-buffer-bytes=1MiB", "--batch-bytes=256KiB")
    await until(lambda: sender.leads and sender.value("buffer_bytes") > 1 << 20)
    await asyncio.sleep(0.3)
    assert sender.value("buffer_bytes") < 2 << 20
    assert sender.value("event_lines_read_total") < 3000
    await until(lambda: sender.value("events_lag_seconds") > 0)
    loki.status = 204
    await has(loki, *(f"{number} {'x' * 900}" for number in range(3000)))
    assert loki.repeated() == {}


async def test_single_namespaces(senders, loki):
    """Each is watched by itself, so that Roles are enough, and has its own position."""
    senders.put("a", "of shop")
    senders.put("b", "of blog", namespace="blog")
    senders.put("c", "of default", namespace="default")
    sender = await senders.start("--namespace=shop", "--namespace=blog")
    await has(loki, "of shop", "of blog")
    await sender.stop()
    assert senders.asked(r"v1/events") == []
    second = await senders.start("--namespace=shop", "--namespace=blog")
    senders.put("a", "again", count=2)
    senders.put("d", "more", namespace="blog")
    await has(loki, "again", "more")
    assert sorted(notes(loki)) == ["again", "more", "of blog", "of shop"]
    assert second.value("lines_lost_total", reason="history") == 0


async def test_excluded_namespaces(senders, loki):
    """Their events make no line."""
    await senders.start("--exclude-namespace=b*")
    senders.put("b", "of blog", namespace="blog")
    senders.put("a", "of shop")
    await has(loki, "of shop")
    assert notes(loki) == ["of shop"]


@pytest.mark.parametrize(
    ("verb", "resource", "says"),
    [
        ("list", "events", "apiGroups [events.k8s.io], resources [events]"),
        ("watch", "events", "apiGroups [events.k8s.io], resources [events]"),
        ("get", "leases", "a Role rule in the namespace kmproxy with apiGroups [coordination.k8s.io]"),
        ("create", "leases", "resources [leases] and verbs [create]"),
        ("update", "leases", "resources [leases], resourceNames [kmproxy-logs-events]"),
    ],
)  # fmt: skip
async def test_a_missing_right(senders, loki, verb, resource, says):
    """The message names it. When it is granted, events come without a restart."""
    senders.cluster.api.deny(verb, resource)
    senders.put("a", "one")
    sender = await senders.start()
    await until(lambda: says in (sender.shipper.options.trouble or ""))
    assert says in await got(sender.daemon.page_port, "/")
    senders.cluster.api.allow(verb, resource)
    await has(loki, "one")
    await until(lambda: sender.shipper.options.trouble is None)
    assert loki.repeated() == {}
