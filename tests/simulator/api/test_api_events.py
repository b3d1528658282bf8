"""Simulated events: as a real API server, the simulated one has no cache of them."""

import asyncio

from tests.support.api_client import get, watching
from tests.support.event_objects import event

PATH = "/apis/events.k8s.io/v1/events"


async def test_lists_have_pages_at_any_version(session, cluster):
    """Also at version 0, at which other lists come as a whole."""
    for verb in ("list", "watch"):
        cluster.api.allow(verb, "events")
    for number in range(3):
        cluster.api.store.put("events", event(f"e{number}", "n"))
    _, document = await get(session, PATH, limit=2, resourceVersion="0")
    assert len(document["items"]) == 2
    assert document["metadata"]["continue"]


async def test_a_watch(session, cluster):
    """It gets no bookmarks, and is silent at a version of the future."""
    for verb in ("list", "watch"):
        cluster.api.allow(verb, "events")
    cluster.api.bookmark_interval = 0.02
    future = str(cluster.api.store.version + 100)
    params = {"allowWatchBookmarks": "true", "path": PATH}
    async with watching(session, resourceVersion=future, **params) as silent:
        waiting = asyncio.create_task(silent())
        now = str(cluster.api.store.version)
        async with watching(session, resourceVersion=now, **params) as changes:
            reading = asyncio.create_task(changes())
            await asyncio.sleep(0.1)
            assert not reading.done()
            cluster.api.store.put("events", event("e", "n"))
            assert (await reading)["type"] == "ADDED"
        assert not waiting.done()
        waiting.cancel()
