"""List and watch of events: requests, bytes, and the next step."""

import json

import pytest

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.watch import Next
from kmproxy.logs.event_watch import REFRESH, EventWatch, event_namespaces, event_path, is_gone

OLD = REFRESH + 1


def made():
    """A watch that draws no chance."""
    return EventWatch(uniform=lambda low, _: low)


def line(kind, version="7", **fields):
    """A line of a watch."""
    item = {"metadata": {"name": "e", "namespace": "shop", "resourceVersion": version}, **fields}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def test_the_requests():
    """Lists have pages, and no version: the newest state is wanted. A watch has its version."""
    watch = made()
    assert watch.list_params() == {"limit": "500"}
    assert watch.list_params("t", limit=1) == {"limit": "1", "continue": "t"}
    assert watch.watch_params(12)["resourceVersion"] == "12"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_cut(size):
    """The cut of the bytes does not show. Only what came or changed has an object."""
    data = (
        line("ADDED", "7") + line("MODIFIED", "8") + line("DELETED", "9") + line("BOOKMARK", "10")
    )
    watch = made()
    watch.watch_params(1)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    found = [each for piece in pieces for each in watch.feed(piece)]
    assert [each.version for each in found] == [7, 8, 9, 10]
    assert [bool(each.event) for each in found] == [True, True, False, False]
    assert watch.ended(5.0, 0.0) is Next.WATCH_AT_ONCE


def test_halves_of_pairs():
    """A lone surrogate in any field does not stop the watch."""
    data = line("ADDED", note="a\ud800b")
    (change,) = made().feed(data)
    assert json.loads(change.event)["note"] == "a�b"


@pytest.mark.parametrize(
    "data",
    [b"x\n", b"{}\n", b'{"type":"ADDED","object":{}}\n', line("ADDED", "abc"), line("ADDED", ""),
     b'{"type":"ADDED","object":' + b"[" * 5000 + b"\n"],
)  # fmt: skip
def test_garbage(data):
    """It is an error, after which a list is due."""
    watch = made()
    with pytest.raises(ApiError) as caught:
        list(watch.feed(data))
    assert watch.failed(caught.value, listing=False, age=0.0) is Next.LIST


def test_an_error_event():
    """A 410 in the watch, as a status."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    data = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    with pytest.raises(ApiError) as caught:
        list(made().feed(data))
    assert is_gone(caught.value)


@pytest.mark.parametrize(
    ("error", "opened", "age", "step"),
    [
        (ApiError(410, "Expired", "gone"), False, 0.0, Next.LIST),
        (ApiError(504, "Timeout", "Too large resource version: 9"), False, 0.0, Next.LIST),
        (ApiError(403, "Forbidden", "no"), False, OLD, Next.WATCH),
        (ApiError(500, "InternalError", "no"), False, OLD, Next.WATCH),
        (ApiError(429, "TooManyRequests", "no"), True, OLD, Next.WATCH),
        (UpstreamError("timeout", "silent"), True, 0.0, Next.WATCH_AT_ONCE),
        (UpstreamError("timeout", "silent"), True, OLD, Next.LIST_AT_ONCE),
        (UpstreamError("timeout", "silent"), False, OLD, Next.WATCH),
        (UpstreamError("refused", "away"), False, OLD, Next.WATCH),
        (UpstreamError("disconnected", "cut"), True, OLD, Next.WATCH),
    ],
)  # fmt: skip
def test_the_step_after_a_failure(error, opened, age, step):
    """A list only if the history is gone, or if a silent watch is old."""
    watch = made()
    watch.watch_params(1)
    if opened:
        watch.opened()
    assert watch.failed(error, listing=False, age=age) is step
    assert watch.failed(error, listing=True, age=age) is Next.LIST


def test_the_end_of_a_watch():
    """After a long silence a list follows, in time before the history is gone."""
    watch = made()
    watch.watch_params(1)
    assert watch.ended(300.0, OLD) is Next.LIST_AT_ONCE
    with pytest.raises(ApiError, match="at once"):
        watch.ended(0.5, 0.0)
    list(watch.feed(b'{"type"'))
    with pytest.raises(ApiError, match="middle"):
        watch.ended(300.0, 0.0)


def test_the_namespaces():
    """Names are watched one by one, patterns together."""
    assert event_namespaces(()) == ("",)
    assert event_namespaces(("a", "b", "a")) == ("a", "b")
    assert event_namespaces(("a", "b*")) == ("",)
    assert event_path("") == "/apis/events.k8s.io/v1/events"
    assert event_path("a") == "/apis/events.k8s.io/v1/namespaces/a/events"
