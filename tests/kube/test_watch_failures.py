"""The step after a failure: list or watch, at once or later, as client-go's reflector does it."""

import json

import pytest

from kmproxy.errors import ApiError
from kmproxy.kube.objects import parse_status
from kmproxy.kube.watch import PATIENCE, Next
from tests.support.watch_events import STATUS_410, at, bookmark, namespace, watching

TOO_LARGE = "Timeout: Too large resource version: 9, current: 5"


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize(
    ("error", "step", "version"),
    [
        (parse_status(410, json.dumps(STATUS_410).encode()), Next.LIST, ""),
        (parse_status(410, b"gone"), Next.LIST, ""),
        (parse_status(504, json.dumps({"message": TOO_LARGE}).encode()), Next.LIST, ""),
        (ApiError(500, "InternalError", TOO_LARGE), Next.LIST, ""),
        (ApiError(429, "TooManyRequests", "slow down"), Next.WATCH, "100"),
        (ApiError(500, "InternalError", "oops"), Next.WATCH, "100"),
        (ApiError(503, "ServiceUnavailable", "later"), Next.WATCH, "100"),
        (ApiError(504, "Timeout", "later"), Next.WATCH, "100"),
        (ApiError(200, "garbage", "no event"), Next.LIST, "100"),
        (ApiError(400, "BadRequest", "bad"), Next.LIST, "100"),
        (ApiError(401, "Unauthorized", "who"), Next.LIST, "100"),
        (ApiError(403, "Forbidden", "no"), Next.LIST, "100"),
        (ApiError(404, "NotFound", "no"), Next.LIST, "100"),
    ],
)
def test_what_comes_after_a_failure(error, step, version, listing):
    """410: list anew from etcd; 429 and 5xx: the same watch again; otherwise a list.

    A list that asked for a version which is not to be had is made anew at once.
    """
    state = watching()
    expected = step
    if listing:
        expected = Next.LIST if version else Next.LIST_AT_ONCE
    assert state.failed(error, listing=listing) is expected
    assert at(state) == version


def test_a_list_is_repeated_at_once_but_once():
    """If etcd itself says 410 the next list waits its turn."""
    state = watching()
    gone = parse_status(410, b"gone")
    steps = [state.failed(gone, listing=True) for _ in range(3)]
    assert steps == [Next.LIST_AT_ONCE, Next.LIST, Next.LIST]


def test_patience_ends():
    """What may pass by itself is waited out PATIENCE times; then a list is due, from there."""
    state = watching()
    error = ApiError(500, "InternalError", "oops")
    steps = [state.failed(error, listing=False) for _ in range(PATIENCE + 2)]
    assert steps == [Next.WATCH] * PATIENCE + [Next.LIST] * 2
    assert at(state) == "100"


def test_an_api_server_with_too_many_requests():
    """It is not asked for more, a list, however often it says so."""
    state = watching()
    error = ApiError(429, "TooManyRequests", "later")
    for _ in range(3 * PATIENCE):
        assert state.failed(error, listing=False) is Next.WATCH


@pytest.mark.parametrize("sign", ["event", "list"])
def test_patience_is_renewed(sign):
    """An event, a bookmark or a list starts the count over."""
    state = watching()
    error = ApiError(503, "ServiceUnavailable", "later")
    for _ in range(PATIENCE):
        state.failed(error, listing=False)
    if sign == "list":
        state.listed("200")
    else:
        list(state.feed(bookmark("200")))
    assert [state.failed(error, listing=False) for _ in range(PATIENCE)] == [Next.WATCH] * PATIENCE


@pytest.mark.parametrize(
    ("data", "lasted", "reason"),
    [
        (b"", 300.0, None),
        (b"", 1.0, None),
        (b"", 0.999, "short"),
        (b"\n", 0.5, "short"),
        (bookmark("101"), 0.999, "short"),
        (namespace("ADDED", "a", "101"), 0.01, "short"),
        (namespace("ADDED", "a", "101"), 1.0, None),
        (bookmark("101")[:-1], 300.0, "cut"),
        (bookmark("101") + b"{", 300.0, "cut"),
        (b'{"type":', 0.1, "cut"),
    ],
)
def test_the_end_of_a_watch(data, lasted, reason):
    """A clean end is normal; at once, or in mid-line, it is a failure, and is waited out."""
    state = watching()
    list(state.feed(data))
    if reason is None:
        assert state.ended(lasted) is Next.WATCH_AT_ONCE
        return
    with pytest.raises(ApiError) as caught:
        state.ended(lasted)
    assert (caught.value.code, caught.value.reason) == (200, reason)
    assert state.failed(caught.value, listing=False) is Next.WATCH
