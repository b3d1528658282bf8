"""Which failure reaches a request that asks for a value fetched after a moment."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.errors import CredentialError
from kmproxy.shared import Found, SharedValue
from tests.support.sharing import Clock, Source


@pytest.mark.parametrize("error", [CredentialError("no token"), ValueError("a fault")])
async def test_an_unexpected_error_of_an_earlier_fetch_does_not_count(error):
    """It reaches the request that began the fetch. The later request waits for the next one."""
    clock = Clock()
    source = Source(error, "new")
    source.gate.clear()
    listed = SharedValue(source, "list", interval=0.0, max_age=60.0, clock=clock)
    earlier = asyncio.create_task(listed.get(5.0))
    await source.begun.wait()
    clock.now += 1.0
    later = asyncio.create_task(listed.get(5.0, asked_after=clock.now))
    await asyncio.sleep(0)
    source.gate.set()
    with pytest.raises(type(error)):
        await earlier
    assert await later == Found("new", 0.0)
    assert source.asked == 2


async def test_an_unexpected_error_of_a_later_fetch_counts():
    """A request whose own fetch fails so does not wait for another one."""
    clock = Clock()
    source = Source(CredentialError("no token"))
    listed = SharedValue(source, "list", interval=1.0, max_age=60.0, clock=clock)
    with pytest.raises(CredentialError):
        await listed.get(5.0, asked_after=clock.now)
    assert source.asked == 1
