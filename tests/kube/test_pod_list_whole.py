"""A short list of pods is decoded at once, a long one pod by pod: both read the same lists."""

from __future__ import annotations

import msgspec
import pytest

from kmproxy.errors import UpstreamError
from kmproxy.kube import pod_list
from kmproxy.kube.object_list import MAX_FRAME_PARTS
from kmproxy.kube.pod_list import MAX_WRITTEN, PodListReader, PodMeta


class Pod(msgspec.Struct):
    """A pod, as far as these tests read it."""

    metadata: PodMeta


DECODER = msgspec.json.Decoder(Pod)
ONE = b'{"metadata":{"name":"web-0","namespace":"shop","labels":{"a":"{[,\\"]}"}},"x":[1,{}]}'
LISTS = [
    b'{"items":[]}',
    b'{"items":null}',
    b' { "kind" : "PodList", "items" : [ %b , %b ] , "metadata" : {"items":[1]} } ' % (ONE, ONE),
    b'{"metadata":{"a":"\\"items\\":[{"},"items":[%b]}' % ONE,
    b"",
    b"[]",
    b"{}",
    b"null",
    b'{"items":{}}',
    b'{"items":[1]}',
    b'{"items":[null]}',
    b'{"items":["x"]}',
    b'{"items":[[%b]]}' % ONE,
    b'{"items":[%b,]}' % ONE,
    b'{"items":[%b]' % ONE,
    b'{"items":[%b' % ONE[:-1],
    b'{"items":[%b]}}' % ONE,
    b'{"items":[%b]}[]' % ONE,
    b'{"items":[{"metadata":{}}]}',
    b'{"items":[{"metadata":{"name":"\xff"}}]}',
    b'{"items":[{"metadata":{"name":"x","labels":{"a":1}}}]}',
    b'{"items":[%b],"x":01}' % ONE,
]
DEEP = b'{"items":[{"metadata":{"name":"x"},"x":%b}]}' % (b"[" * 5000 + b"]" * 5000)
"""Too deep for some versions of Python."""


def read(body, step, *, whole=True):
    """The names of the pods in a list that arrives in pieces, or the reason of an error."""
    reader = PodListReader(DECODER, whole=whole)
    try:
        pods = []
        for at in range(0, len(body), step):
            pods += reader.feed(body[at : at + step])
        pods += reader.finish()
    except UpstreamError as error:
        return error.reason
    return [(pod.metadata.name, pod.metadata.labels) for pod in pods if isinstance(pod, Pod)]


@pytest.mark.parametrize("body", [*LISTS, DEEP])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_list_is_read_alike(body, step, monkeypatch):
    """Whatever is in it, and however it is cut."""
    whole = read(body, step)
    assert read(body, step, whole=False) == whole
    monkeypatch.setattr(pod_list, "MAX_COMMAS", -1)
    assert read(body, step) == whole
    monkeypatch.setattr(pod_list, "WHOLE", len(body) // 2)
    assert read(body, step) == whole


def test_which_lists_are_lists():
    """The first ones of these."""
    assert [type(read(body, 1000)) for body in LISTS[:4]] == [list] * 4
    assert {read(body, 1000) for body in LISTS[4:]} == {"garbage"}


@pytest.mark.parametrize("name", ["WHOLE", "MAX_COMMAS"])
def test_what_is_not_decoded_at_once(name, monkeypatch):
    """A list that is too long, or that has too many values: their memory would have no bound."""
    body = b'{"items":[%b]}' % b",".join([ONE] * 10)
    monkeypatch.setattr(pod_list, name, 10)
    monkeypatch.setattr(pod_list, "_LIST", None)
    assert len(read(body, 1000)) == 10


@pytest.mark.parametrize(
    ("start", "piece", "parts"),
    [
        (b'{"items":[', b"[", MAX_FRAME_PARTS),
        (b'{"items":[', b"[],", MAX_FRAME_PARTS),
        (b"", b'{"a":', MAX_FRAME_PARTS),
        (b"{", b'"a":{},', MAX_FRAME_PARTS),
        (b'{"items":[', b'{"a":', MAX_WRITTEN),
        (b'{"items":[{', b'"a":{},', MAX_WRITTEN),
    ],
)
def test_structure_without_end(start, piece, parts):
    """A list of brackets and braces alone is refused as soon as they are too many."""
    reader = PodListReader(DECODER)
    with pytest.raises(UpstreamError, match="not a list of pods"):
        list(reader.feed(start + piece * (parts + 1)))


def test_a_long_list_is_split_while_it_arrives(monkeypatch):
    """Each piece costs the reading of twice its bytes, and little is left for the end."""
    monkeypatch.setattr(pod_list, "WHOLE", 10_000)
    body = b'{"items":[%b]}' % b",".join([ONE] * 1000)
    reader = PodListReader(DECODER, whole=True)
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    found = [len(list(reader.feed(piece))) for piece in pieces]
    last = len(list(reader.finish()))
    assert sum(found) + last == 1000
    assert max(found) <= 2000 // len(ONE) + 2
    assert last <= 15


def test_an_object_as_large_as_it_may_be(monkeypatch):
    """The parts of the frame, and of other objects, are not counted with it."""
    monkeypatch.setattr(pod_list, "MAX_PARTS", 5)  # one stands in a text
    body = b'{"items":[%b,%b],"metadata":{"a":{}}}' % (ONE, ONE)
    assert len(read(body, 1000, whole=False)) == 2
    assert len(read(body, 1000)) == 2
    monkeypatch.setattr(pod_list, "MAX_PARTS", 2)
    assert read(body, 1000, whole=False) == read(body, 1000) == []
