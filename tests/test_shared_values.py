"""Values that shared calls fetch: their age, pauses, failures, and newer values on demand."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.shared import Found, SharedValue
from tests.support.sharing import Clock, Source, failure


@pytest.fixture
def clock():
    """The time of the values."""
    return Clock()


def shared(source, clock, *, interval=5.0, max_age=60.0):
    """A list of that source."""
    return SharedValue(source, "list", interval=interval, max_age=max_age, clock=clock)


async def test_one_fetch_for_all_askers_at_once(clock):
    """All requests during a fetch share it."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    askers = [asyncio.create_task(listed.get(5.0)) for _ in range(20)]
    await source.begun.wait()
    source.gate.set()
    assert {found.value for found in await asyncio.gather(*askers)} == {"list"}
    assert source.asked == 1


async def test_one_fetch_within_the_interval(clock):
    """Requests within the interval after a fetch share its list. Later ones fetch again."""
    source = Source("first", "second")
    listed = shared(source, clock)
    assert (await listed.get(5.0)).value == "first"
    clock.now += 4.999
    assert await listed.get(5.0) == Found("first", pytest.approx(4.999))
    assert source.asked == 1
    clock.now += 0.001
    assert await listed.get(5.0) == Found("second", 0.0)


async def test_the_age_counts_from_the_question(clock):
    """The age counts from the request to the kubelet, the interval from the answer."""
    source = Source("slow", "next")
    source.gate.clear()
    listed = shared(source, clock)
    asker = asyncio.create_task(listed.get(5.0))
    await source.begun.wait()
    clock.now += 7.0
    source.gate.set()
    assert await asker == Found("slow", 7.0)
    clock.now += 4.0
    assert await listed.get(5.0) == Found("slow", 11.0)
    assert source.asked == 1


async def test_the_last_good_one_stands_in(clock):
    """While fetches fail the last list is served, until it is too old. Then the error is."""
    source = Source("good", *(failure() for _ in range(3)), "better")
    listed = shared(source, clock)
    await listed.get(5.0)
    clock.now += 30.0
    assert await listed.get(5.0) == Found("good", 30.0)
    clock.now += 29.0
    assert (await listed.get(5.0)).value == "good"
    clock.now += 1.0
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        await listed.get(5.0)
    assert (caught.value.reason, caught.value.status) == ("refused", 502)
    clock.now += 4.0  # five seconds after the last fetch, the third
    source.answers[:1] = []
    assert await listed.get(5.0) == Found("better", 0.0)


async def test_a_fetch_that_takes_longer_than_a_list_may_age(clock):
    """A slow fetch's list is served, as no newer one exists; not after a failure."""
    source = Source("slow", failure())
    source.gate.clear()
    listed = shared(source, clock, interval=1.0, max_age=5.0)
    asker = asyncio.create_task(listed.get(5.0))
    await source.begun.wait()
    clock.now += 8.0
    source.gate.set()
    assert await asker == Found("slow", 8.0)
    assert await listed.get(5.0) == Found("slow", 8.0)
    clock.now += 1.0
    with pytest.raises(UpstreamError):
        await listed.get(5.0)


async def test_a_failure_is_shared_as_well(clock):
    """A failing kubelet is asked no more often than a working one."""
    source = Source(failure(), "good")
    listed = shared(source, clock)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await listed.get(5.0)
        clock.now += 1.0
    assert source.asked == 1
    clock.now += 2.0
    assert (await listed.get(5.0)).value == "good"


async def test_what_is_gone_is_gone(clock):
    """A 404 is an answer, not a failure: no older list is served."""
    source = Source("good", failure(404), failure())
    listed = shared(source, clock)
    await listed.get(5.0)
    for _ in range(2):
        clock.now += 5.0
        with pytest.raises(UpstreamError):
            await listed.get(5.0)
    assert listed.held is None


async def test_an_asker_waits_for_its_time_only(clock):
    """A request that waited its time gets the last list or 504. The fetch continues."""
    source = Source("first", "second")
    source.gate.clear()
    listed = shared(source, clock)
    with pytest.raises(UpstreamError) as caught:
        await listed.get(0.01)
    assert (caught.value.reason, caught.value.status) == ("timeout", 504)
    source.gate.set()
    assert (await listed.get(5.0)).value == "first"
    source.gate.clear()
    clock.now += 6.0
    assert (await listed.get(0.01)).value == "first"
    source.gate.set()
    assert (await listed.get(5.0)).value == "second"
    assert source.asked == 2


async def test_an_asker_that_leaves_ends_nothing(clock):
    """A fetch continues for others when its first caller leaves."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    first, second = (asyncio.create_task(listed.get(5.0)) for _ in range(2))
    await source.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert (await second).value == "list"


async def test_close_gives_up_the_fetch(clock):
    """Nothing is fetched after close."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    with pytest.raises(UpstreamError):
        await listed.get(0.01)
    await listed.close()
    assert len(asyncio.all_tasks()) == 1
    await listed.close()


async def test_an_unforeseen_error_is_no_list(clock):
    """An unexpected error reaches the caller unchanged, and the next fetch is tried."""
    source = Source(RuntimeError("a fault of our own"), "good")
    listed = shared(source, clock)
    with pytest.raises(RuntimeError):
        await listed.get(5.0)
    clock.now += 5.0
    assert (await listed.get(5.0)).value == "good"


async def test_a_fetch_that_began_before_does_not_count(clock):
    """Neither an ended nor a running fetch counts: one more begins, for all requests together."""
    source = Source("old", "running", "new")
    value = shared(source, clock, interval=0.0)
    assert (await value.get(5.0)).value == "old"
    source.gate.clear()
    source.begun.clear()
    clock.now += 1.0
    early = asyncio.create_task(value.get(5.0))
    await source.begun.wait()
    clock.now += 1.0
    late = [asyncio.create_task(value.get(5.0, asked_after=clock.now)) for _ in range(5)]
    clock.now += 1.0
    await asyncio.sleep(0)
    assert source.asked == 2
    source.gate.set()
    assert await early == Found("running", 2.0)
    assert await asyncio.gather(*late) == [Found("new", 0.0)] * 5
    assert source.asked == 3


async def test_a_fetch_that_began_at_that_time_counts(clock):
    """A running or ended fetch counts until a newer value is demanded."""
    source = Source("value")
    source.gate.clear()
    value = shared(source, clock, interval=0.0, max_age=1.0)
    began = clock.now
    first = asyncio.create_task(value.get(5.0))
    await source.begun.wait()
    clock.now += 10.0
    second = asyncio.create_task(value.get(5.0, asked_after=began))
    source.gate.set()
    assert (await first, await second) == (Found("value", 10.0), Found("value", 10.0))
    assert await value.get(5.0, asked_after=began) == Found("value", 10.0)
    assert source.asked == 1


async def test_the_pause_holds_for_every_request(clock):
    """A request for a newer value waits for the end of the interval. Then one fetch begins."""
    source = Source("old", "new")
    value = shared(source, clock, interval=0.01)
    await value.get(5.0)
    clock.now += 0.004
    tasks = [asyncio.create_task(value.get(5.0, asked_after=clock.now)) for _ in range(3)]
    await asyncio.sleep(0.05)  # the clock stands
    assert source.asked == 1
    assert (await value.get(5.0)).value == "old"
    clock.now += 0.006
    assert await asyncio.gather(*tasks) == [Found("new", 0.0)] * 3
    assert source.asked == 2


async def test_a_newer_value_that_cannot_be_had(clock):
    """The request gets the error, never an older value. An earlier good fetch still counts."""
    source = Source("old", failure(), "new", failure())
    value = shared(source, clock, interval=1.0)
    await value.get(5.0)
    clock.now += 1.0
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        await value.get(5.0, asked_after=clock.now)
    assert caught.value.status == 502
    assert (await value.get(5.0)).value == "old"
    clock.now += 1.0
    between = clock.now
    assert (await value.get(5.0, asked_after=between)).value == "new"
    clock.now += 1.0
    assert (await value.get(5.0)).value == "new"  # its next fetch fails
    assert (await value.get(5.0, asked_after=between)).value == "new"
    assert source.asked == 4


async def test_a_newer_value_that_comes_too_late(clock):
    """The request gets 504 after its patience. The fetch goes on for the next request."""
    source = Source("old", "new")
    value = shared(source, clock, interval=0.0)
    await value.get(5.0)
    source.gate.clear()
    clock.now += 1.0
    with pytest.raises(UpstreamError) as caught:
        await value.get(0.01, asked_after=clock.now)
    assert (caught.value.reason, caught.value.status) == ("timeout", 504)
    source.gate.set()
    assert (await value.get(5.0, asked_after=clock.now)).value == "new"
    assert source.asked == 2


async def test_an_unforeseen_error_is_no_newer_value(clock):
    """After an unexpected error another fetch begins. The older value does not count."""
    source = Source("old", RuntimeError("a fault of our own"), "new")
    value = shared(source, clock, interval=0.0)
    await value.get(5.0)
    clock.now += 1.0
    wanted = clock.now
    with pytest.raises(RuntimeError):
        await value.get(5.0, asked_after=wanted)
    assert (await value.get(5.0, asked_after=wanted)).value == "new"


async def test_a_timeout_inside_a_fetch_is_not_the_patience(clock):
    """It reaches the waiting requests unchanged."""
    value = shared(Source(TimeoutError("inside")), clock)
    with pytest.raises(TimeoutError, match="inside"):
        await value.get(5.0)


async def test_close_ends_those_that_wait_for_the_pause(clock):
    """No waiting request begins a fetch after `close`."""
    source = Source("old")
    value = shared(source, clock, interval=0.01)
    await value.get(5.0)
    task = asyncio.create_task(value.get(5.0, asked_after=clock.now + 0.001))
    await asyncio.sleep(0)
    await value.close()
    clock.now += 1.0
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.asked == 1
