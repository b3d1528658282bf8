"""Several processes of `kmproxy logs --events`: one sends at a time, and the next one goes on."""

import asyncio
import json

import pytest

from kmproxy.simulator.answers import ApiFault
from tests.support.event_objects import has, notes
from tests.support.event_senders import TIMES, senders_of
from tests.support.loki import Loki, got, until

SPACES = {"shop": {"team": "red"}, "blog": {"team": "blue"}, "kmproxy": {}}


@pytest.fixture
async def senders(tmp_path, loki, monkeypatch):
    """A cluster, and processes that send its events."""
    async with senders_of(SPACES, tmp_path, loki, monkeypatch) as made:
        yield made


async def two(senders, *flags):
    """A leader, and a process that waits."""
    first = await senders.start(*flags)
    await until(lambda: first.leads)
    second = await senders.start(*flags)
    return first, second


def stored(senders):
    """The positions in the Lease."""
    text = senders.lease["metadata"]["annotations"]["kmproxy/events-positions"]
    return json.loads(text)["positions"][""]


def version(senders):
    """The version in the Lease up to which all lines were taken."""
    return stored(senders).get("place", {}).get("version", 0)


async def test_the_leader_is_killed(senders, loki):
    """The other one waits for the Lease to run out, and sends what came since the position."""
    first, second = await two(senders)
    senders.put("a", "one")
    await has(loki, "one")
    one = senders.cluster.api.store.objects["events"]["shop/a"]
    await until(lambda: version(senders) >= int(one["metadata"]["resourceVersion"]))
    page = await got(second.daemon.page_port, "/")
    assert f"sent by {senders.lease['spec']['holderIdentity']}" in page
    assert (second.leads, second.value("events_leader")) == (False, 0)
    await first.kill()
    for number in range(20):
        senders.put(f"b{number}", f"after {number}")
    await has(loki, *(f"after {number}" for number in range(20)))
    assert loki.repeated() == {}
    assert second.value("events_terms_total", how="expired") == 1
    assert second.value("lines_lost_total", reason="history") == 0
    assert senders.lease["spec"]["leaseTransitions"] == 1


class Forgetful(Loki):
    """An endpoint that stores a push with the text `last`, and answers no push from then on."""

    last = None

    async def _push(self, request):
        if self.last is not None:
            self.store_and_fail = 1
        response = await super()._push(request)
        if self.last in notes(self):
            self.status = 503
        return response


async def test_a_kill_with_a_push_under_way(tmp_path, monkeypatch):
    """Only the lines of that push may come twice, and no line of another tenant."""
    loki = Forgetful()
    await loki.start()
    try:
        async with senders_of(SPACES, tmp_path, loki, monkeypatch) as senders:
            first, second = await two(senders, "--tenant-label=team")
            for number in range(30):
                senders.put(f"a{number}", f"blue {number}", namespace="blog")
            await has(loki, *(f"blue {number}" for number in range(30)))
            loki.last = "red 0"
            senders.put("x", "red 0")
            await until(lambda: "red 0" in notes(loki) and stored(senders).get("behind"))
            await first.kill()
            loki.last, loki.status, loki.store_and_fail = None, 204, 0
            senders.put("y", "red 1")
            await has(loki, "red 1")
            await until(lambda: second.leads and not stored(senders).get("behind"))
    finally:
        await loki.stop()
    assert sorted(notes(loki)) == sorted(
        [*(f"blue {number}" for number in range(30)), "red 0", "red 0", "red 1"]
    )


async def test_a_position_that_cannot_be_written(senders, loki):
    """The next push waits for it: a kill at this moment repeats one push, not two."""
    first = await senders.start()
    await until(lambda: first.leads)
    senders.cluster.api.fail("update leases", ApiFault.STATUS, status=503)
    senders.put("a", "one")
    await has(loki, "one")
    senders.put("b", "two")
    await until(lambda: not first.leads or len(first.shipper.term.readers[0].progress))
    await asyncio.sleep(0.4)
    assert notes(loki) == ["one"]
    senders.cluster.api.recover()
    await has(loki, "two")


async def test_a_leader_that_cannot_renew(senders, loki):
    """It stops before another one may begin, and drops the lines that it has not sent."""
    first, second = await two(senders)
    senders.put("a", "one")
    await has(loki, "one")
    overlaps = []

    async def look():
        while True:
            overlaps.append(first.leads and second.leads)
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    loki.status = 503
    senders.put("b", "two")
    await until(lambda: len(first.shipper.term.readers[0].progress) == 1)
    senders.cluster.api.fail("update leases", ApiFault.STATUS, status=503)
    await until(lambda: not first.leads)
    pushes, identity = loki.pushes, first.shipper.holder.election.identity
    assert senders.lease["spec"]["holderIdentity"] == identity
    loki.status = 204
    await asyncio.sleep(0.3)
    assert (loki.pushes, notes(loki)) == (pushes, ["one"])
    senders.cluster.api.recover()
    await has(loki, "two")
    looking.cancel()
    assert loki.repeated() == {}
    assert not any(overlaps)


async def test_a_lease_that_another_one_has_taken(senders, loki):
    """A process whose write is refused is no leader any more, and does not move the position."""
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    await until(lambda: version(senders) > 1000)
    kept = '{"format":1,"positions":{"":{"place":{"version":7}}}}'
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}
    senders.change_lease(spec=spec, annotation=kept)
    await until(lambda: not first.leads)
    senders.put("b", "two")
    await asyncio.sleep(TIMES.retry * 3)
    assert senders.lease["metadata"]["annotations"]["kmproxy/events-positions"] == kept
    assert senders.lease["spec"]["holderIdentity"] == "somebody"
    assert notes(loki) == ["one"]
    assert first.value("events_leader") == 0


async def test_another_annotation_changes(senders, loki):
    """Somebody who edits the Lease does not end the leader's term, and the edit stays."""
    first = await senders.start()
    await until(lambda: first.leads)
    lease = senders.lease
    meta = lease["metadata"] | {"labels": {"edited": "yes"}}
    del meta["resourceVersion"]
    senders.cluster.api.store.put("leases", lease | {"metadata": meta})
    term = first.shipper.term
    senders.put("a", "one")
    await has(loki, "one")
    await until(lambda: "events-positions" in str(senders.lease["metadata"].get("annotations")))
    await until(lambda: version(senders) > 1000)
    assert first.shipper.term is term
    assert senders.lease["metadata"]["labels"] == {"edited": "yes"}


@pytest.mark.parametrize("damaged", ["x", "{}", '{"format":9,"positions":{}}'])
async def test_a_damaged_position(senders, loki, damaged):
    """No event is sent until it is repaired; with --positions-damaged=begin they begin anew."""
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    await first.stop()
    senders.change_lease(annotation=damaged)
    second = await senders.start()
    await until(lambda: "no event is sent" in (second.shipper.options.trouble or ""))
    assert not second.leads
    assert notes(loki) == ["one"]
    await second.stop()
    third = await senders.start("--positions-damaged=begin")
    await until(lambda: len(loki.entries) == 2)
    assert notes(loki) == ["one", "one"]
    assert third.leads


async def test_the_end_of_a_leader_whose_endpoint_is_away(senders, loki, monkeypatch):
    """SIGTERM does not lose the lines that could not be sent: the next process sends them."""
    monkeypatch.setattr("kmproxy.daemon.logs.GRACE", 0.2)
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    loki.status = 503
    senders.put("b", "two")
    await until(lambda: len(first.shipper.term.readers[0].progress) == 1)
    await first.stop()
    assert senders.lease["spec"]["holderIdentity"] == ""
    loki.status = 204
    second = await senders.start()
    await has(loki, "two")
    assert loki.repeated() == {}
    assert second.value("lines_lost_total", reason="history") == 0


async def test_the_lease_is_lost_while_a_leader_ends(senders, loki):
    """A process that waits for its last push ends at once when another one has the Lease."""
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    loki.status = 503
    senders.put("b", "two")
    await until(lambda: len(first.shipper.term.readers[0].progress) == 1)
    ending = asyncio.create_task(first.stop())
    await until(first.shipper._reading.done)
    senders.change_lease(spec={"holderIdentity": "somebody", "leaseDurationSeconds": 3600})
    async with asyncio.timeout(30):
        await ending
    assert senders.lease["spec"]["holderIdentity"] == "somebody"
    assert notes(loki) == ["one"]


async def test_the_release_meets_a_lost_answer(senders, loki):
    """A renewal whose answer did not come does not keep the Lease from being let go."""
    first = await senders.start()
    senders.put("a", "one")
    await has(loki, "one")
    holder = first.shipper.holder
    await until(lambda: holder._served == holder._wanted > 0)  # the last push is over
    senders.cluster.api.fail("update leases", ApiFault.HANG, times=1)
    await until(lambda: any(each.path.endswith("events") for each in senders.cluster.api.requests))
    await asyncio.sleep(TIMES.retry * 2)
    await first.stop()
    assert senders.lease["spec"]["holderIdentity"] == ""
    assert version(senders) > 1000


async def test_a_name_of_its_own(senders, loki):
    """--events-lease names another Lease, in another namespace if it says so."""
    sender = await senders.start("--events-lease=shop/mine")
    await until(lambda: sender.leads)
    assert "shop/mine" in senders.cluster.api.store.objects["leases"]
