"""What a failed fetch leaves in memory: its reason, message and status, and nothing it had read."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.shared import SharedValue
from tests.support.sharing import Clock


class Part:
    """The part of a list that was read before the list was cut short."""


async def test_a_failure_keeps_nothing_that_the_fetch_had_read():
    """The error that is remembered does not keep the frames of the fetch alive."""
    parts = []

    async def fetch():
        part = Part()
        parts.append(weakref.ref(part))
        await asyncio.sleep(0)
        raise UpstreamError("truncated", "the list was cut short", status=502)

    listed = SharedValue(fetch, "list", interval=5.0, max_age=60.0, clock=Clock())
    for _ in range(2):  # the second request gets the remembered error
        with pytest.raises(UpstreamError, match="cut short") as caught:
            await listed.get(5.0)
        assert (caught.value.reason, caught.value.status) == ("truncated", 502)
        del caught
    gc.collect()
    assert [part() for part in parts] == [None]
