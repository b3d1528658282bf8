"""The queries of lists and watches: which resource version each asks for, and which objects."""

import pytest

from kmproxy.errors import ApiError
from kmproxy.kube.watch import LIST_ACCEPT, SILENCE, WATCH_ACCEPT, Next, WatchState
from tests.support.watch_events import at, bookmark, middle, watching


def test_the_version_moves_on_with_each_event_taken():
    """A reader that fails between two events resumes behind the first, not the second."""
    state = watching()
    events = state.feed(bookmark("101") + bookmark("102"))
    assert next(events) is None
    assert at(state) == "101"


def test_what_a_list_asks_for():
    """Any version for a first list; none beside a continue token, which would be refused.

    Beside the version of a watch there is no limit, as that would ask for this very version,
    which etcd refuses with a plain 500 if it is still to come.
    """
    state = WatchState(uniform=middle)
    assert at(state) == "0"
    assert int(state.list_params()["limit"]) > 0
    assert watching("100").list_params() == {"resourceVersion": "100"}
    state.failed(ApiError(410, "Gone", "gone"), listing=True)
    assert state.list_params() == {"limit": "500", "resourceVersion": ""}
    params = state.list_params("token+/=")
    assert (params["continue"], "resourceVersion" in params) == ("token+/=", False)


def test_only_metadata_is_asked_for():
    """And plain JSON where that is not known."""
    kind = "application/json;as=PartialObjectMetadata%s;g=meta.k8s.io;v=v1,application/json"
    assert (kind % "List", kind % "") == (LIST_ACCEPT, WATCH_ACCEPT)


def test_a_watch_begins_at_the_version_of_the_list():
    """It asks for bookmarks, and for its own end after 300 to 600 seconds."""
    bounds = []

    def draw(low, high):
        bounds.append((low, high))
        return 432.1

    state = WatchState(uniform=draw)
    state.listed("123")
    assert state.watch_params() == {
        "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "123",
        "timeoutSeconds": "432",
    }  # fmt: skip
    assert bounds == [(300.0, 600.0)]
    assert 70 <= SILENCE <= 90  # a bookmark comes every 60 s


def test_a_relist_asks_for_the_last_version():
    """A list after a watch takes no state older than what was seen already."""
    state = watching("100")
    list(state.feed(bookmark("250")))
    assert at(state) == "250"
    assert state.failed(ApiError(400, "BadRequest", "bad"), listing=False) is Next.LIST
    assert at(state) == "250"


@pytest.mark.parametrize("step", list(Next))
def test_what_a_step_is(step):
    """Its name says it."""
    assert step.lists == step.name.startswith("LIST")
    assert step.at_once == step.name.endswith("AT_ONCE")


def test_the_state_shows_where_it_is():
    """Its repr is a status line."""
    state = watching("77")
    assert repr(state) == "<WatchState at version 77>"
    state.failed(ApiError(410, "Gone", "gone"), listing=False)
    assert repr(state) == "<WatchState at version latest>"
