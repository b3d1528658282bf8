"""`kmproxy logs --events` in front of a real API server: two processes, a kill, a compaction."""

from __future__ import annotations

import asyncio
import json
import os
import re

import pytest

from kmproxy.kube.permissions import EVENTS, NAMESPACES, lease, rules
from tests.support.event_objects import event, notes, stamp
from tests.support.loki import got, shipping, until
from tests.support.programs import eventually

from .control_plane import HOST

pytestmark = [pytest.mark.cluster]

SPACE = "kmproxy-system"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases/kmproxy-logs-events"
EVENTS_OF = "/apis/events.k8s.io/v1/namespaces/{}/events"


@pytest.fixture
def command(plane, tmp_path, loki):
    """The environment and the command line of a pod with exactly the documented rights."""
    user = plane.account(SPACE, "kmproxy")
    plane.grant(user, *rules((*NAMESPACES, *EVENTS)))
    plane.grant(user, *rules(lease(SPACE, "kmproxy-logs-events")), namespace=SPACE)
    plane.namespace("payments", team="payments")
    plane.namespace("shop", team="shop")
    plane.write_service_account(tmp_path / "sa", plane.token(SPACE, "kmproxy"))
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": HOST,
        "KUBERNETES_SERVICE_PORT": str(plane.port),
    }
    return environment, [
        "logs", f"--service-account-dir={tmp_path / 'sa'}", f"--loki-url={loki.url}",
        "--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0",
        "--source=none", "--events", "--batch-wait=100ms", "--tenant-label=team",
    ]  # fmt: skip


def create(plane, prefix, number):
    """Create events in two namespaces by both APIs; the counts of some grow. Returns their lines."""
    wanted = []
    for at in range(number):
        space, note = ("payments", "shop")[at % 2], f"{prefix} {at}"
        made, path = event(f"{prefix}-{at}", note, namespace=space), EVENTS_OF.format(space)
        change = {"series": {"count": 2, "lastObservedTime": stamp()}}
        if at % 3 == 0:
            made = old(f"{prefix}-{at}", note, space)
            path, change = f"/api/v1/namespaces/{space}/events", {"count": 2}
        plane.request("POST", path, made)
        wanted.append(f"{note} x{made.get('count', 0)}")
        if at % 5 == 1:
            path = f"{path}/{prefix}-{at}"
            plane.request("PATCH", path, change, kind="application/merge-patch+json")
            wanted.append(f"{note} x2")
    return wanted


def lines(loki):
    """The note and the count of each line that has come."""
    counts = [re.search(r" count=(\d+) ", text) for text in loki.texts]
    return [
        f"{note} x{count[1] if count else 0}"
        for note, count in zip(notes(loki), counts, strict=True)
    ]


def old(name, note, space):
    """An event as most controllers still write it."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": space},
        "involvedObject": {"kind": "Pod", "name": "web-0", "namespace": space},
        "reason": "BackOff",
        "message": note,
        "type": "Warning",
        "count": 1,
        "lastTimestamp": stamp()[:19] + "Z",
        "source": {"component": "kubelet", "host": "node-a"},
    }


async def value(telemetry, name):
    """A sample of a process's own metrics."""
    shown = (await got(telemetry, "/metrics")).splitlines()
    return next(float(each.split()[-1]) for each in shown if each.startswith(name))


async def leads(telemetry):
    """Wait until the process is the leader."""

    async def check():
        assert await value(telemetry, "kmproxy_log_events_leader") == 1

    await eventually(check)


def stored(plane):
    """The version in the Lease up to which all lines were taken, -1 if lines wait."""
    text = plane.request("GET", LEASE)["metadata"]["annotations"]["kmproxy/events-positions"]
    position = json.loads(text)["positions"][""]
    return -1 if position.get("behind") else position["place"]["version"]


async def come(loki, plane, wanted):
    """Wait until these lines have come and the position says so."""
    await until(lambda: set(wanted) <= set(lines(loki)))
    newest = max(
        int(each["metadata"]["resourceVersion"])
        for each in plane.request("GET", "/apis/events.k8s.io/v1/events")["items"]
    )
    await until(lambda: stored(plane) >= newest)


async def test_each_event_once(plane, command, loki):
    """Over a kill of the leader, an end in order, and a history that was compacted meanwhile."""
    wanted = await asyncio.to_thread(create, plane, "before", 5)
    wanted.remove("before 1 x0")  # of an event that changed a list has only the last change
    async with shipping(*command) as (first, (_, telemetry)):
        await leads(telemetry)
        async with shipping(*command) as (second, (_, other)):
            wanted += await asyncio.to_thread(create, plane, "first", 30)
            await come(loki, plane, wanted)
            assert await value(other, "kmproxy_log_events_leader") == 0
            first.kill()
            wanted += await asyncio.to_thread(create, plane, "second", 30)
            await leads(other)
            await come(loki, plane, wanted)
            assert await value(other, 'kmproxy_log_events_terms_total{how="expired"}') == 1
            assert await value(other, 'kmproxy_log_lines_lost_total{reason="history"}') == 0
            second.terminate()
            assert await second.wait() == 0
    assert plane.request("GET", LEASE)["spec"]["holderIdentity"] == ""
    wanted += await asyncio.to_thread(create, plane, "third", 10)
    await asyncio.to_thread(plane.compact)
    async with shipping(*command) as (_, (_, telemetry)):
        wanted.remove("third 1 x0")
        wanted.remove("third 6 x1")
        await come(loki, plane, wanted)
        assert await value(telemetry, 'kmproxy_log_lines_lost_total{reason="history"}') == 1
        assert await value(telemetry, 'kmproxy_log_events_terms_total{how="released"}') == 1
    assert sorted(lines(loki)) == sorted(wanted)
    streams = {(entry.tenant, *sorted(entry.stream.items())) for entry in loki.entries}
    assert streams == {
        (name, ("namespace", name), ("stream", "event"), ("team", name))
        for name in ("payments", "shop")
    }
