"""The text, the time and the pod of a Kubernetes event."""

import json

import pytest

from kmproxy.logs.event_text import read_event, version_of, whole_text
from tests.support.documents import blocks
from tests.support.event_objects import event

LIMIT = 256 << 10


def read(made, *, limit=LIMIT, version="7"):
    """An event as the API server sends it."""
    meta = {"resourceVersion": version, "creationTimestamp": "2026-11-30T17:00:00Z"}
    return read_event(json.dumps(made | {"metadata": made["metadata"] | meta}).encode(), limit)


def seconds(found):
    """The time in seconds after 17:00 of the day of these tests."""
    return (found.time - 1796058000 * 10**9) / 1e9


def test_the_text():
    """The keys and their order are those of Grafana Alloy; values are quoted if need be."""
    found = read(event("e", "pulled", count=3, deprecatedSource={"component": "k", "host": "n 1"}))
    assert found.text == (
        b"name=web-0 kind=Pod action=Pulling objectAPIversion=v1 eventRV=7 "
        b"reportinginstance=node-a reportingcontroller=kubelet sourcecomponent=k "
        b'sourcehost="n 1" reason=Pulled type=Normal count=3 msg="pulled"'
    )
    assert (found.version, found.key, found.namespace) == (7, "shop/e", "shop")
    assert not found.is_cut


def test_the_documented_line():
    """The line in the documentation is that of such an event."""
    (shown,) = (each.text for each in blocks("docs/logs.md") if each.text.startswith("name="))
    found = read(event("e", "Successfully pulled image", count=3), version="4711")
    assert shown.encode() == found.text + b"\n"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"series": {"count": 2, "lastObservedTime": "2026-11-30T17:00:03.5Z"}}, 3.5),
        ({"deprecatedLastTimestamp": "2026-11-30T17:00:02Z"}, 2),
        ({"eventTime": "2026-11-30T17:00:01.25Z"}, 1.25),
        ({"eventTime": None}, 0),
        ({"eventTime": "0001-01-01T00:00:00Z"}, 0),
        ({"eventTime": "2026-13-99T99:00:00Z"}, 0),
        ({"eventTime": "2026-11-30T18:00:04+01:00"}, 4),
    ],
)
def test_the_time(given, wanted):
    """The last observation counts. An impossible time is none."""
    assert seconds(read(event("e", "n", eventTime=None) | given)) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({"deprecatedCount": 4}, b" count=4 "), ({}, b" type=Normal msg="),
     ({"deprecatedCount": -1}, b" type=Normal msg=")],
)  # fmt: skip
def test_the_count(given, wanted):
    """It is there if somebody counted."""
    assert wanted in read(event("e", "n", **given)).text


def test_nothing_but_a_name():
    """An event without any field is a line all the same."""
    bare = {"metadata": {"name": "e", "namespace": "shop"}, "regarding": None}
    assert read(bare).text == b'eventRV=7 msg=""'


HOSTILE = 'a"b\\c\n\r\t\x1b[31m\x00\x7f\x85\u202e\u2028 reason=forged \U000e0001é😀'


def test_hostile_values():
    """One line of printable text, and a JSON parser gives back what was written."""
    found = read(event("e", HOSTILE, reason=HOSTILE))
    text = found.text.decode()
    assert text.isprintable()
    note = text[text.index("msg=") + 4 :]
    assert json.loads(note) == HOSTILE
    reason = text[text.index("reason=") + 7 : text.index(" type=")]
    assert json.loads(reason) == HOSTILE


def test_halves_of_pairs():
    """A lone surrogate is replaced; whole pairs and escaped backslashes stay."""
    raw = rb'{"a":"\ud800 \\ud800 \ud83d\ude00 \udc00\udbff","b":"\\\ud801"}'
    assert json.loads(whole_text(raw)) == {"a": "� \\ud800 😀 ��", "b": "\\�"}
    found = read(event("e", "a\ud800b"))
    assert found.text.endswith('msg="a�b"'.encode())


@pytest.mark.parametrize("note", ["x" * 100_000, '"' * 100_000, "\x00é" * 50_000, "😀" * 50_000])
@pytest.mark.parametrize("limit", [64, 300, 4096])
def test_a_huge_note(note, limit):
    """The line is cut to the limit, and is UTF-8; if the limit allows, it is well formed."""
    found = read(event("e", note), limit=limit)
    assert found.is_cut
    assert len(found.text) <= limit
    text = found.text.decode()
    if limit > 64:
        assert note.startswith(json.loads(text[text.index("msg=") + 4 :]))
        assert len(found.text) > limit - 30


def test_other_values_are_bounded():
    """A name of a megabyte does not take the place of the note."""
    found = read(event("e", "the note", reason="r" * 1_000_000))
    assert found.is_cut
    assert found.text.endswith(b'msg="the note"')
    assert len(found.text) < 2000


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"metadata":null}', b'{"metadata":{"resourceVersion":"x"}}',
        b'{"metadata":{"resourceVersion":"1","namespace":"../x"}}', b"\xff\xfe",
        b'{"metadata":{"resourceVersion":"1","namespace":"a"},"note":5}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_unreadable(data):
    """None, and no error."""
    assert read_event(data, LIMIT) is None


def test_versions():
    """A version is a number without a leading zero."""
    assert version_of("12") == 12
    assert [version_of(each) for each in ("0", "01", "", None, "1a", "٣", "9" * 30)] == [None] * 7
