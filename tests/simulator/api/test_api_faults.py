"""Faults of the simulated API server: each breaks an answer in its own way, and can be ended."""

import asyncio
import json

import aiohttp
import pytest

from kmproxy.simulator.answers import ApiFault
from tests.conftest import until
from tests.support.api_client import NAMESPACES, get, names, watching


async def test_fault_status(session, api):
    """A planned Status has code, reason and Retry-After, as often as asked."""
    api.fail("list", ApiFault.STATUS, times=1, status=429, message="slow down", retry_after=3)
    async with session.get(NAMESPACES) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        assert (await answer.json())["reason"] == "TooManyRequests"
    assert (await get(session, NAMESPACES))[0] == 200
    api.fail("proxy", ApiFault.STATUS, status=500, reason="Custom")
    status, error = await get(session, "/api/v1/nodes/node-a/proxy/metrics")
    assert (status, error["reason"]) == (500, "Custom")
    assert (await get(session, "/api/v1/nodes"))[0] == 200
    api.recover()
    api.fail("nodes", ApiFault.STATUS)
    assert (await get(session, "/api/v1/nodes"))[0] == 500
    assert (await get(session, NAMESPACES))[0] == 200


async def test_fault_garbage(session, api):
    """A garbage answer is 200 and not JSON."""
    api.fail("list", ApiFault.GARBAGE)
    async with session.get(NAMESPACES) as answer:
        assert answer.status == 200
        with pytest.raises(ValueError):
            json.loads(await answer.read())


async def test_fault_cut_list(session, api):
    """A cut list ends before its announced length."""
    api.fail("list", ApiFault.CUT)
    async with session.get(NAMESPACES) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("params", [{}, {"watch": "true"}])
async def test_fault_misframed(session, api, params):
    """What comes after a good chunk is none, and the connection is closed."""
    api.fail(None, ApiFault.MISFRAMED)
    async with session.get(NAMESPACES, params=params) as answer:
        assert answer.status == 200
        assert (await answer.content.readany()).startswith(b'{"')
        with pytest.raises(TimeoutError):  # which is all that this client makes of it
            await asyncio.wait_for(answer.content.readany(), 0.3)


async def test_fault_hang(session, api):
    """A hanging request gets no answer, and does not keep the server from stopping."""
    api.fail("list", ApiFault.HANG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(get(session, NAMESPACES), 0.1)
    seen = len(api.requests)
    waiting = asyncio.create_task(get(session, NAMESPACES))
    await until(lambda: asyncio.sleep(0, len(api.requests) > seen))
    async with asyncio.timeout(10):
        await api.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_fault_cut_watch(session, api):
    """A cut watch breaks off in the middle of the next event's line."""
    api.fail("watch", ApiFault.CUT, times=1)
    params = {"watch": "true", "resourceVersion": api.store.version}
    async with session.get(NAMESPACES, params=params) as answer:
        api.namespaces.apply("d")
        assert b"\n" not in await answer.content.readany()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()


async def test_fault_end_and_error_event(session, api):
    """A watch can end at once, or begin with an ERROR event of any code."""
    api.fail("watch", ApiFault.ERROR_EVENT, times=1, status=500)
    async with watching(session) as event:
        error = await event()
        assert (error["type"], error["object"]["code"]) == ("ERROR", 500)
        assert await event() is None
    api.fail("watch", ApiFault.END, times=1)
    async with watching(session) as event:
        assert await event() is None


async def test_fault_silent_watch(session, api):
    """A silent watch tells neither events nor bookmarks."""
    api.bookmark_interval = 0.01
    api.fail("watch", ApiFault.SILENT)
    async with watching(session, allowWatchBookmarks="true") as event:
        api.namespaces.apply("d")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event(), 0.1)


async def test_break_watches(session, api):
    """`break_watches` cuts the open ones, without an end."""
    async with watching(session, resourceVersion=api.store.version) as event:
        assert api.watches == 1
        api.break_watches()
        with pytest.raises(aiohttp.ClientError):
            await event()
    await asyncio.sleep(0)
    assert api.watches == 0


async def test_down_and_back(session, api):
    """Stopped, the server ends its watches at once; started, it has its ports and objects."""
    url, plain = api.url, api.plain_url
    async with watching(session, resourceVersion=api.store.version) as event:
        async with asyncio.timeout(10):  # the client would wait for longer
            await api.stop()
        assert await event() is None
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(session, NAMESPACES)
    await api.start()
    assert (api.url, api.plain_url) == (url, plain)
    assert names((await get(session, NAMESPACES))[1]) == ["a", "b", "c"]
