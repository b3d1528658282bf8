"""How many fetches are under way at once, and what becomes of those who wait."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.slots import Slots
from kmproxy.telemetry import Telemetry


@pytest.fixture
def telemetry():
    """Our own metrics."""
    return Telemetry()


def in_flight(telemetry):
    """What the metric says."""
    return telemetry.registry.get_sample_value("kmproxy_scrapes_in_flight")


def soon(seconds=30.0):
    """A deadline, on the clock of the event loop."""
    return asyncio.get_running_loop().time() + seconds


async def test_no_more_than_the_count(telemetry):
    """As many hold one as there are; the next gets in when one leaves, the first to ask first."""
    slots = Slots(2, telemetry)
    leave = [asyncio.Event() for _ in range(5)]
    inside = []

    async def ask(number):
        async with slots.taken(soon()):
            inside.append(number)
            await leave[number].wait()

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0.05)
    assert inside == [0, 1]
    assert in_flight(telemetry) == 2
    for number in (1, 0, 2, 3, 4):
        leave[number].set()
        await tasks[number]
    assert inside == [0, 1, 2, 3, 4]
    assert in_flight(telemetry) == 0


@pytest.mark.parametrize("seconds", [0.05, 0.0, -1.0])
async def test_nobody_waits_beyond_the_deadline(telemetry, seconds):
    """503, which names the flag, and the one that holds the slot is left alone."""
    slots = Slots(1, telemetry)
    async with slots.taken(soon()):
        with pytest.raises(UpstreamError, match="--max-concurrency is 1") as caught:
            await asyncio.wait_for(slots.taken(soon(seconds)).__aenter__(), 30)
        assert (caught.value.status, caught.value.reason) == (503, "timeout")
        assert in_flight(telemetry) == 1
    async with slots.taken(soon()):
        assert in_flight(telemetry) == 1


async def test_the_block_is_not_bounded(telemetry):
    """The deadline is for the waiting alone: what is done with a slot has limits of its own."""
    async with Slots(1, telemetry).taken(soon(0.02)):
        await asyncio.sleep(0.05)


async def test_a_slot_comes_back(telemetry):
    """After an error, after a cancellation while it is held, and after one while it is awaited."""
    slots = Slots(1, telemetry)
    with pytest.raises(ValueError, match="inside"):
        async with slots.taken(soon()):
            raise ValueError("inside")

    async def hold():
        async with slots.taken(soon()):
            await asyncio.Event().wait()

    for _ in range(3):
        holding, waiting = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0)
        holding.cancel()
        await asyncio.gather(holding, waiting, return_exceptions=True)
    assert in_flight(telemetry) == 0
    async with slots.taken(soon(0.05)):
        pass
