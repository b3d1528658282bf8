"""Watches of the simulated API server: events, bookmarks, versions, and changes of objects."""

import asyncio
import json

import aiohttp
import pytest

from tests.support.api_client import NAMESPACES, get, names, watching

WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
MERGE = "application/merge-patch+json"


async def test_watch_from_a_version_to_come_can_wait(session, api):
    """With `future_watch_waits` such a watch is silent until the version has passed."""
    api.future_watch_waits = True
    api.bookmark_interval = 0.01
    version = api.store.version + 1
    async with watching(session, resourceVersion=version, allowWatchBookmarks="true") as event:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event(), 0.1)
    api.bookmark_interval = 60.0
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("d")
        api.namespaces.apply("e")
        assert (await event())["object"]["metadata"]["name"] == "e"


async def test_watch_sees_what_follows_the_list(session, api):
    """A watch from a list's version has every later change, in order, with its version."""
    _, listed = await get(session, NAMESPACES)
    api.namespaces.apply("d", {"team": "z"})
    version = listed["metadata"]["resourceVersion"]
    async with watching(session, resourceVersion=version, accept=WATCH) as event:
        api.namespaces.apply("d", {"team": "w"}, {"note": "n"})
        api.namespaces.apply("d", {"team": "w"})
        api.namespaces.delete("d")
        events = [await event() for _ in range(3)]
    assert [each["type"] for each in events] == ["ADDED", "MODIFIED", "DELETED"]
    metadata = [each["object"]["metadata"] for each in events]
    assert [each["labels"]["team"] for each in metadata] == ["z", "w", "w"]
    versions = [int(each["resourceVersion"]) for each in metadata]
    assert versions == [int(version) + each for each in (1, 2, 3)]
    assert len({each["uid"] for each in metadata}) == 1
    assert {each["object"]["kind"] for each in events} == {"PartialObjectMetadata"}


async def test_watch_without_a_version_begins_with_what_is(session, api):
    """A watch from nowhere adds every object first, then tells the changes."""
    async with watching(session) as event:
        assert [(await event())["object"]["metadata"]["name"] for _ in "abc"] == ["a", "b", "c"]
        api.namespaces.delete("b")
        assert (await event())["type"] == "DELETED"


async def test_streaming_list(session, api):
    """`sendInitialEvents` ends the first objects with an annotated bookmark."""
    params = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    async with watching(session, allowWatchBookmarks="true", **params) as event:
        *added, mark = [await event() for _ in range(4)]
    assert {each["type"] for each in added} == {"ADDED"}
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["metadata"]["resourceVersion"] == str(api.store.version)


async def test_bookmarks(session, api):
    """Bookmarks come at the interval set, with the newest version, to those who ask."""
    api.bookmark_interval = 0.05
    version = api.store.version
    async with watching(session, resourceVersion=version, allowWatchBookmarks="true") as event:
        mark = await event()
    assert (mark["type"], mark["object"]["kind"]) == ("BOOKMARK", "Namespace")
    assert mark["object"]["metadata"]["resourceVersion"] == str(version)
    async with watching(session, resourceVersion=version, timeoutSeconds="0.15") as event:
        assert await event() is None


@pytest.mark.parametrize("how", ["event", "status"])
async def test_version_too_old(session, api, how):
    """A version before the history is 410 Expired, as an ERROR event or as a status."""
    api.expired_as = how
    old = api.store.version
    api.expire_history()
    params = {"watch": "true", "resourceVersion": old}
    async with session.get(NAMESPACES, params=params) as answer:
        document = json.loads(await answer.content.readline())
        assert answer.status == (200 if how == "event" else 410)
    error = document["object"] if how == "event" else document
    assert (error["code"], error["reason"]) == (410, "Expired")
    assert error["message"] == f"too old resource version: {old} ({api.store.version})"


async def test_open_watch_outlives_the_history(session, api):
    """`expire_history` does not disturb a watch that is open."""
    async with watching(session, resourceVersion=api.store.version) as event:
        api.expire_history()
        api.namespaces.apply("d")
        assert (await event())["type"] == "ADDED"


async def test_backup(session, api):
    """After `restore_backup` objects and versions are those of the start; watches are cut."""
    version = api.store.version
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("d")
        await event()
        api.restore_backup()
        with pytest.raises(aiohttp.ClientError):
            await event()
    _, listed = await get(session, NAMESPACES)
    assert (names(listed), listed["metadata"]["resourceVersion"]) == (["a", "b", "c"], str(version))
    assert (await get(session, NAMESPACES, resourceVersion=version + 1))[0] == 504
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("e")
        assert (await event())["object"]["metadata"]["name"] == "e"


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        (MERGE, {"metadata": {"labels": {"team": None, "tier": "1"}}}),
        (
            "application/strategic-merge-patch+json",
            {"metadata": {"labels": {"team": None, "tier": "1"}}},
        ),
        (
            "application/json-patch+json",
            [
                {"op": "test", "path": "/metadata/labels/team", "value": "x"},
                {"op": "remove", "path": "/metadata/labels/team"},
                {"op": "add", "path": "/metadata/labels/tier", "value": "1"},
            ],
        ),
    ],
)
async def test_patch(admin, api, kind, patch):
    """Each kind of patch changes the labels, and the version."""
    before = api.store.version
    headers = {"Content-Type": kind}
    async with admin.patch(f"{NAMESPACES}/a", data=json.dumps(patch), headers=headers) as answer:
        item = await answer.json()
        assert answer.status == 200
    assert item["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a", "tier": "1"}
    assert item == api.namespaces.get("a")
    assert api.store.version == before + 1
    async with admin.patch(f"{NAMESPACES}/a", data="{}", headers=headers | {"Content-Type": MERGE}):
        assert api.store.version == before + 1


async def test_create_replace_delete(admin, api):
    """A namespace can be made once, replaced at its version, and deleted."""
    new = {"metadata": {"name": "d", "labels": {"team": "d"}}}
    async with admin.post(NAMESPACES, json=new) as answer:
        item = await answer.json()
        assert answer.status == 201
    async with admin.post(NAMESPACES, json=new) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (409, "AlreadyExists")
    item["metadata"]["labels"] = {"team": "e"}
    async with admin.put(f"{NAMESPACES}/d", json=item) as answer:
        assert (await answer.json())["metadata"]["labels"]["team"] == "e"
    async with admin.put(f"{NAMESPACES}/d", json=item) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (409, "Conflict")
    async with admin.delete(f"{NAMESPACES}/d") as answer:
        assert answer.status == 200
    assert api.namespaces.get("d") is None
    status, error = await get(admin, f"{NAMESPACES}/d")
    assert (status, error["message"]) == (404, 'namespaces "d" not found')
