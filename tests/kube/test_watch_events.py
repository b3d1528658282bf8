"""Events of a watch mean the same however the bytes are cut. A bad event ends the watch."""

import json

import pytest

from kmproxy.errors import ApiError
from kmproxy.kube.objects import ObjectMeta, parse_status
from kmproxy.kube.watch import MAX_OBJECT, Change, Next
from tests.support.watch_events import (
    ANNOTATIONS,
    STATUS_410,
    at,
    bookmark,
    event,
    namespace,
    watching,
)


def change(kind, name, **labels):
    """The change that this event is read as."""
    return Change(kind, ObjectMeta(name, labels, ANNOTATIONS))


def take(data, cut):
    """Feeds a watch in pieces of `cut` bytes: the changes, the final error, the version."""
    state, changes = watching(), []
    try:
        for begin in range(0, len(data), cut):
            changes += state.feed(data[begin : begin + cut])
    except ApiError as error:
        return changes, (error.code, error.reason), at(state)
    return changes, None, at(state)


def check(data, changes, error, version):
    """Checks a watch whole, byte by byte, in odd pieces, and with more data after it."""
    for cut in (len(data) or 1, 1, 13):
        assert take(data, cut) == (changes, error, version)
    more = (changes, error, version) if error else ([*changes, change("ADDED", "z")], None, "999")
    trailing = data + namespace("ADDED", "z", "999") + b'{"type":"ADDED","obj'
    for cut in (len(trailing), 1, 13):
        assert take(trailing, cut) == more


@pytest.mark.parametrize(
    ("data", "changes", "version"),
    [
        (namespace("ADDED", "a", "101", team="x"), [change("ADDED", "a", team="x")], "101"),
        (namespace("MODIFIED", "a", "102"), [change("MODIFIED", "a")], "102"),
        (namespace("DELETED", "a", "103", t="1"), [change("DELETED", "a", t="1")], "103"),
        (bookmark("104"), [None], "104"),
        (namespace("ADDED", "a", "1") + namespace("DELETED", "a", "2") + bookmark("3"),
         [change("ADDED", "a"), change("DELETED", "a"), None], "3"),
        (b"\n \r\n" + bookmark("105") + b"\n", [None], "105"),
        (bookmark("105").replace(b"\n", b"\r\n"), [None], "105"),
        (namespace("ADDED", "a", "opaque/\u00fc"), [change("ADDED", "a")], "opaque/\u00fc"),
        (bookmark("9") + bookmark("8"), [None, None], "8"),
        (event("ADDED", {"metadata": {"name": "n", "resourceVersion": "7", "labels": None}}),
         [Change("ADDED", ObjectMeta("n"))], "7"),
        (event("INVENTED", {"metadata": {"resourceVersion": "106"}}), [None], "106"),
        (namespace("ADDED", "a", "107", team="x\ny\u2028{\U0001f680"),
         [change("ADDED", "a", team="x\ny\u2028{\U0001f680")], "107"),
        (b"", [], "100"),
    ],
)  # fmt: skip
def test_events(data, changes, version):
    """Each event and bookmark sets the version. It is opaque, and used as received."""
    check(data, changes, None, version)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (event("ERROR", STATUS_410), (410, "Expired")),
        (event("ERROR", {"code": 429, "reason": "TooManyRequests"}), (429, "TooManyRequests")),
        (event("ERROR", {"code": 500, "reason": "InternalError"}), (500, "InternalError")),
        (event("ERROR", {}), (500, "http_500")),
        (event("ERROR", None), (500, "http_500")),
        (event("ERROR", "what"), (500, "http_500")),
        (event("ERROR", {"code": 200, "message": "planted"}), (500, "http_500")),
        (b"garbage\n", (200, "garbage")),
        (b"{}\n", (200, "garbage")),
        (b"[]\n", (200, "garbage")),
        (b"null\n", (200, "garbage")),
        (b'{"type":"ADDED"}\n', (200, "garbage")),
        (b'{"type":7,"object":{}}\n', (200, "garbage")),
        (event("ADDED", None), (200, "garbage")),
        (event("ADDED", {"metadata": {"name": "a"}}), (200, "garbage")),
        (event("BOOKMARK", {"metadata": {}}), (200, "garbage")),
        (event("ADDED", {"metadata": {"resourceVersion": 5}}), (200, "garbage")),
        (event("ADDED", {"metadata": {"resourceVersion": "5", "labels": {"a": 1}}}), (200, "garbage")),
        (namespace("ADDED", "a", "5")[:-2] + b"\n", (200, "garbage")),
        (namespace("ADDED", "a", "5")[:-1] + b"{}\n", (200, "garbage")),
        (namespace("ADDED", "bad\xff", "5").replace(b"\\u00ff", b"\xff"), (200, "garbage")),
        (b'{"type":"\xff","object":{"metadata":{"resourceVersion":"5"}}}\n', (200, "garbage")),
        (b'{"type":"ADDED","object":' + b"[" * 9999 + b"]" * 9999 + b"}\n", (200, "garbage")),
        (b"[" * 99_999 + b"\n", (200, "garbage")),
        (b"\x00" * 99 + b"\n", (200, "garbage")),
    ],
)  # fmt: skip
def test_events_that_end_a_watch(line, error):
    """An ERROR event or an invalid event raises ApiError. Earlier events count."""
    check(line, [], error, "100")
    check(bookmark("101") + line, [None], error, "101")


def test_an_event_of_many_megabytes():
    """A line of any pieces is put together, also over a reader's limit."""
    value = "v" * (5 << 20)
    data = namespace("ADDED", "big", "101", team=value) + bookmark("102")
    expected = ([change("ADDED", "big", team=value), None], None, "102")
    for cut in (len(data), 1 << 16, 4093):
        assert take(data, cut) == expected


@pytest.mark.parametrize("cut", [1, 7, 1000])
@pytest.mark.parametrize(("size", "error"), [(200, None), (201, (200, "garbage"))])
def test_an_event_without_end(monkeypatch, cut, size, error):
    """A line over MAX_OBJECT bytes is garbage, however it is cut, so memory is bounded."""
    assert MAX_OBJECT >= 4 << 20
    monkeypatch.setattr("kmproxy.kube.watch.MAX_OBJECT", 200)
    line = bookmark("101").rstrip(b"\n")
    changes = [] if error else [None]
    found = take(line + b" " * (size - len(line)) + b"\n", cut)
    assert found == (changes, error, "100" if error else "101")


def test_an_error_event_is_as_the_same_status():
    """A 410 event has the effect of a 410 status: a new list, from etcd."""
    state = watching()
    with pytest.raises(ApiError) as caught:
        list(state.feed(event("ERROR", STATUS_410)))
    assert state.failed(caught.value, listing=False) is Next.LIST
    assert at(state) == ""


def test_an_unreadable_error_event():
    """An ERROR event in invalid UTF-8 is an ApiError, like any other."""
    line = event("ERROR", {"code": 410, "message": "bad\xff"}).replace(b"\\u00ff", b"\xff")
    with pytest.raises(ApiError):
        list(watching().feed(line))


def test_each_watch_stands_alone():
    """Unfinished bytes of the last watch do not count for the next."""
    state = watching()
    list(state.feed(bookmark("101") + b'{"type":"ADD'))
    assert state.watch_params()["resourceVersion"] == "101"
    assert list(state.feed(bookmark("102"))) == [None]
    state.ended(5.0)


@pytest.mark.parametrize(
    ("code", "body", "header", "expected"),
    [
        (410, json.dumps(STATUS_410).encode(), None, (410, "Expired", None)),
        (429, b'{"code":429,"details":{"retryAfterSeconds":2}}', None, (429, "http_429", 2.0)),
        (429, b'{"code":429,"details":{"retryAfterSeconds":2}}', "7", (429, "http_429", 7.0)),
        (429, b"slow down", "1", (429, "http_429", 1.0)),
        (503, b"", "Fri, 20 Nov 2026 20:00:00 GMT", (503, "http_503", None)),
        (503, b"", "-1", (503, "http_503", None)),
        (503, b"", "60", (503, "http_503", 60.0)),
        (503, b"", "61", (503, "http_503", 60.0)),
        (503, b"", "86400", (503, "http_503", 60.0)),
        (503, b"", "9" * 400, (503, "http_503", 60.0)),
        (429, b'{"details":{"retryAfterSeconds":-50}}', None, (429, "http_429", None)),
        (429, b'{"details":{"retryAfterSeconds":1e300}}', None, (429, "http_429", 60.0)),
        (429, b'{"reason":"TooManyRequests"}', "0", (429, "TooManyRequests", None)),
        (500, b'{"code":410,"reason":"Gone"}', None, (410, "Gone", None)),
        (502, b"<html>Bad Gateway</html>", None, (502, "http_502", None)),
        (500, b"null", None, (500, "http_500", None)),
        (503, b'{"code":200,"message":"planted"}', None, (503, "http_503", None)),
        (503, b'{"code":-1,"message":"planted"}', None, (503, "http_503", None)),
        (500, b'{"code":"x"}', None, (500, "http_500", None)),
        (500, b"\xff\xfe", None, (500, "http_500", None)),
        (500, b'{"message":"\xff"}', None, (500, "http_500", None)),
        (500, b"[" * 99_999, None, (500, "http_500", None)),
    ],
)
def test_an_error_status_is_read(code, body, header, expected):
    """The Status gives code, reason and pause. Any other body is harmless."""
    error = parse_status(code, body, header)
    assert (error.code, error.reason, error.retry_after) == expected
    assert "planted" not in error.summary
