"""Watches that fall silent, are cut or last an hour: a list then finds what no event told."""

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.kube.watch import PATIENCE, Next
from tests.support.watch_events import at, bookmark, watching

SILENT = UpstreamError("timeout", "the API server sent nothing for too long", status=504)


def silent(state, data=b""):
    """The step after a watch that is answered, brings these bytes, and falls silent."""
    state.watch_params()
    state.opened()
    list(state.feed(data))
    return state.failed(SILENT, listing=False)


def test_watches_that_fall_silent():
    """The connection may be dead: watch again. After two silent watches: list."""
    state = watching("100")
    assert [silent(state) for _ in range(4)] == [Next.WATCH_AT_ONCE, Next.LIST_AT_ONCE] * 2
    assert state.list_params() == {"resourceVersion": "100"}
    for number in range(101, 110):
        assert silent(state, bookmark(str(number))) is Next.WATCH_AT_ONCE
    assert silent(state) is Next.LIST_AT_ONCE


@pytest.mark.parametrize(
    "error",
    [
        SILENT,
        UpstreamError("disconnected", "the API server closed the connection"),
        UpstreamError("refused", "the API server cannot be reached"),
    ],
)
def test_an_api_server_that_cannot_be_reached(error):
    """The same request is repeated, because the server has said nothing."""
    state = watching("100")
    state.opened()  # the watch before
    for _ in range(3 * PATIENCE):
        state.watch_params()
        assert state.failed(error, listing=False, lasted=400.0) is Next.WATCH
        assert state.failed(error, listing=True, lasted=400.0) is Next.LIST
    assert at(state) == "100"


CUT = UpstreamError("truncated", "the API server's answer was cut short")


def cut(state, data=b"", lasted=5.0):
    """The step after a watch that is answered, brings these bytes, and is cut."""
    state.watch_params()
    state.opened()
    list(state.feed(data))
    return state.failed(CUT, listing=False, lasted=lasted)


def test_watches_that_are_cut():
    """Watches that are answered but cut before an event lead to a list, which may pass."""
    state = watching("100")
    for _ in range(2):
        steps = [cut(state, b'{"type":"ADDED","obj') for _ in range(PATIENCE + 1)]
        assert steps == [Next.WATCH] * PATIENCE + [Next.LIST]
        state.listed("100")
    for number in range(101, 101 + 3 * PATIENCE):
        assert cut(state, bookmark(str(number))) is Next.WATCH


def ended(state):
    """The step after a watch that ends cleanly."""
    state.watch_params()
    return state.ended(400.0)


@pytest.mark.parametrize(
    ("watch", "before", "then"),
    [
        (ended, Next.WATCH_AT_ONCE, Next.LIST_AT_ONCE),
        (lambda state: cut(state, bookmark("200"), 400.0), Next.WATCH, Next.LIST),
    ],
)
def test_a_list_is_due_after_an_hour_of_watches(watch, before, then):
    """An hour of watches leads to a list, which corrects missed changes."""
    state = watching()
    for _ in range(2):
        assert [watch(state) for _ in range(9)] == [before] * 8 + [then]
        state.listed("200")
