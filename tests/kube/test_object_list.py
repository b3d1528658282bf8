"""Lists of any length, read in pieces: exact, and with few bytes in memory."""

from __future__ import annotations

import json
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmproxy.errors import ApiError
from kmproxy.kube import object_list as objectlist
from kmproxy.kube.object_list import MAX_OBJECT, SLICE, ListReader
from kmproxy.kube.objects import ListMeta, Meta, ObjectMeta

ITEM = b'{"metadata":{"name":"a","labels":{"team":"x"},"resourceVersion":"5"}}'


def read(body, size=None):
    """The objects of a list in pieces of this size, its version and its continue token."""
    reader = ListReader()
    size = size or len(body) or 1
    found = []
    for at in range(0, len(body), size):
        for some in reader.feed(body[at : at + size]):
            found += some
    meta = reader.finish()
    return found, meta.resource_version, meta.continue_


@pytest.mark.parametrize("size", [1, 2, 7, None])
@pytest.mark.parametrize(
    ("body", "names", "version", "token"),
    [
        (b'{"metadata":{"resourceVersion":"9"},"items":[%b]}' % ITEM, ["a"], "9", ""),
        (b'{"items":[%b],"metadata":{"resourceVersion":"9","continue":"t"}}' % ITEM, ["a"], "9", "t"),
        (b' {\n "items" :\t[\n%b ,\r\n%b ] , "metadata" : {} }\n' % (ITEM, ITEM), ["a", "a"], "", ""),
        (b'{"kind":"NamespaceList","metadata":{"resourceVersion":"9"},"items":[]}', [], "9", ""),
        (b'{"metadata":{"resourceVersion":"9"},"items":null}', [], "9", ""),
        (b'{"other":[{"items":[{}]},[{}]],"metadata":{},"x":"items\\":[{","items":[%b]}' % ITEM, ["a"], "", ""),
    ],
)  # fmt: skip
def test_a_list_is_read(body, names, version, token, size):
    """The version is the list's own, not an item's. The token requests the next page."""
    spaces = [ObjectMeta(name, {"team": "x"}) for name in names]
    assert read(body, size) == (spaces, version, token)


STRANGE = [
    '"',
    "\\",
    '\\"',
    "{",
    "}",
    "[",
    "]",
    '},{"metadata":{"name":"b"}}',
    '"items":[{',
    "\n",
    "\u00e9",
]
TEXT = st.lists(st.sampled_from([*STRANGE, "a", "z" * 9]), max_size=5).map("".join)
META = st.fixed_dictionaries(
    {"name": TEXT, "annotations": st.dictionaries(TEXT, TEXT, max_size=3)},
    optional={"managedFields": st.lists(st.dictionaries(TEXT, st.lists(TEXT, max_size=2)))},
)


@given(st.lists(META, max_size=4), TEXT, st.integers(1, 40), st.booleans(), st.booleans())
def test_whatever_is_in_it(metas, text, size, first, indented):
    """The objects equal those of a decoder of the whole, for every spelling and cut."""
    document = {"kind": text, "x": [text, [], {"items": [{}]}]}
    parts = [("items", [{"metadata": meta} for meta in metas]), ("metadata", {"continue": text})]
    document |= dict(parts if first else reversed(parts))
    body = json.dumps(document, indent=1 if indented else None, ensure_ascii=indented).encode()
    spaces = [ObjectMeta(meta["name"], {}, meta["annotations"]) for meta in metas]
    assert read(body, size) == (spaces, "", text)


@pytest.mark.parametrize("size", [1, 3, None])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"<html>", b'{"items":[]}', b'{"metadata":{}}',
        b'{"metadata":{},"items":[1]}', b'{"metadata":{},"items":[', b'{"metadata":{},"items":{}}',
        b'{"metadata":{},"items":[{"metadata":{"name":"\xff"}}]}', b"[" * 99_999,
        b'{"metadata":{},"items":[{"metadata":{"labels":{"a":1}}}]}',
        b'{"metadata":{},"items":[{}{}]}', b'{"metadata":{},"items":[{},]}',
        b'{"metadata":{},"items":[1{}]}', b'{"metadata":{},"items":[{}1]}',
        b'{"metadata":{},"items":[{}],"items":[]}', b'{"metadata":{},"items":[[{}]]}',
        b'{"metadata":{},"items":[0,{}]}', b'{"metadata":{},"items":[{}]', b'{"metadata":{},"items":[{]}}',
        b'{"metadata":{},"items":[{}]}}', b'{"metadata":{},"items":[{}]}{', b'{"metadata":{},"items":[{"a"}]}',
        b'{"metadata":{},"\\"items":[{}]}', b'{"metadata":{},"items":[{"a":"\\"}]}', b'}{"metadata":{},"items":[]}',
    ],
)  # fmt: skip
def test_what_is_no_list(body, size):
    """A 200 whose body is not a list of objects is an ApiError, never an empty cluster."""
    with pytest.raises(ApiError) as caught:
        read(body, size)
    assert (caught.value.code, caught.value.reason) == (200, "garbage")


class One(msgspec.Struct):
    """An object, read as a part of its list."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class Whole(msgspec.Struct):
    """A list, read as a whole."""

    items: list[One] | None
    metadata: ListMeta


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(1, 9))
def test_what_is_damaged(damage, at, size):
    """A damaged list has the same outcome as with a decoder of the whole."""
    good = b'{"metadata":{"resourceVersion":"9"},"items":[%b,{"metadata":{"name":"b"}}]}' % ITEM
    body = good[:at] + damage + good[at + len(damage) :]
    try:
        items = msgspec.json.decode(body, type=Whole).items or []
        whole = [item.metadata.name for item in items]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        whole = None
    try:
        found = [space.name for space in read(body, size)[0]]
    except ApiError:
        found = None
    assert found == whole


def test_objects_come_in_slices():
    """Order and number are kept. An error in an object is raised when its turn comes."""
    items = [b'{"metadata":{"name":"n%d"}}' % number for number in range(2 * SLICE + 1)]
    body = b'{"metadata":{"resourceVersion":"9"},"items":[%b]}'
    slices = [[item.name for item in some] for some in ListReader().feed(body % b",".join(items))]
    assert [len(some) for some in slices] == [SLICE, SLICE, 1]
    assert [name for some in slices for name in some] == [f"n{n}" for n in range(2 * SLICE + 1)]
    spoilt = ListReader().feed(body % b",".join([*items[:-1], b'{"metadata":7}']))
    assert (len(next(spoilt)), len(next(spoilt))) == (SLICE, SLICE)
    with pytest.raises(ApiError):
        next(spoilt)


@pytest.mark.parametrize("size", [1, 50, None])
def test_what_is_held_is_bounded(monkeypatch, size):
    """An object, and text outside of objects, have a maximum length."""
    assert MAX_OBJECT >= 4 << 20
    monkeypatch.setattr(objectlist, "MAX_OBJECT", 100)
    monkeypatch.setattr(objectlist, "MAX_FRAME", 100)
    body = b'{"metadata":{},"items":[{"a":"%b"}]%b}'
    assert read(body % (b"z" * 90, b" " * 60), size) == ([ObjectMeta("")], "", "")
    with pytest.raises(ApiError, match="longer than 100 bytes"):
        read(body % (b"z" * 100, b""), size)
    with pytest.raises(ApiError, match="is not a list"):
        read(body % (b"z", b" " * 100), size)


def test_a_long_list_costs_no_memory():
    """200 namespaces with 250 KB of annotations each, 50 MB, take the memory of few objects."""
    item = json.dumps({"metadata": {"name": "a", "annotations": {"k": 'z"' * 80_000}}}).encode()
    reader = ListReader()
    count = 0
    tracemalloc.start()
    try:
        for piece in (b'{"metadata":{},"items":[', *[item, b","] * 199, item, b"]}"):
            for at in range(0, len(piece), 1 << 16):
                for some in reader.feed(piece[at : at + (1 << 16)]):
                    count += len(some)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    reader.finish()
    assert count == 200
    assert peak < 8 * len(item)


def cost(body):
    """CPU seconds per byte, the better of two runs."""
    times = []
    for _ in range(2):
        reader = ListReader()
        began = time.process_time()
        for at in range(0, len(body), 1 << 16):
            for _ in reader.feed(body[at : at + (1 << 16)]):
                pass
        times.append(time.process_time() - began)
    return min(times) / len(body)


@pytest.mark.parametrize(
    "text", [b"\\\\" * 9, b'\\"' * 9, b"},{" * 6, b"z" * 18, b'\\"items\\":[{' * 2, b"\\u0001" * 3]
)
def test_the_cost_is_linear(text):
    """A string of any kind costs the same per byte at 4 MiB and at 64 KiB."""
    body = b'{"metadata":{},"items":[{"metadata":{"annotations":{"a":"%b"}}}]}'
    short, long = (cost(body % (text * (size // len(text)))) for size in (1 << 16, 4 << 20))
    assert long < 8 * short
