"""List and watch: what the bytes mean, and what comes next, as client-go's reflector has it."""

import json
import random
from collections import Counter

import pytest

from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.backoff import BACKOFF_LIMIT, PROBE_LIMIT, Backoff
from kmproxy.kube.objects import parse_status
from kmproxy.kube.watch import (
    LIST_ACCEPT,
    MAX_OBJECT,
    PATIENCE,
    SILENCE,
    WATCH_ACCEPT,
    Change,
    Next,
    WatchState,
)

ANNOTATIONS = {"owner": "o"}
STATUS_410 = {"kind": "Status", "status": "Failure", "message": "too old resource version: 1 (9)",
              "reason": "Expired", "code": 410}  # fmt: skip


def middle(low, high):
    """A random source that always draws the middle."""
    return (low + high) / 2


def highest(low, high):
    """A random source that always draws the upper bound."""
    assert low <= high
    return high


def event(kind, obj):
    """A line of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def namespace(kind, name, version, **labels):
    """An event of a namespace, with more in it than matters."""
    metadata = {"name": name, "resourceVersion": version, "labels": labels, "uid": "u",
                "annotations": ANNOTATIONS, "managedFields": [{"manager": "kubectl"}]}  # fmt: skip
    return event(kind, {"kind": "PartialObjectMetadata", "metadata": metadata})


def change(kind, name, **labels):
    """What such an event is read as."""
    return Change(kind, Namespace(name, labels, ANNOTATIONS))


def bookmark(version):
    """A BOOKMARK as a real API server sends it."""
    metadata = {"resourceVersion": version, "creationTimestamp": None}
    return event("BOOKMARK", {"kind": "PartialObjectMetadata", "metadata": metadata})


def watching(version="100"):
    """A state in a watch that follows a list of this version."""
    state = WatchState(uniform=middle)
    state.listed(version)
    state.watch_params()
    return state


def at(state):
    """The version that the state would resume from."""
    return state.list_params()["resourceVersion"]


def take(data, cut):
    """Feed a watch in pieces of `cut` bytes: the changes, the error that ended it, the version."""
    state, changes = watching(), []
    try:
        for begin in range(0, len(data), cut):
            changes += state.feed(data[begin : begin + cut])
    except ApiError as error:
        return changes, (error.code, error.reason), at(state)
    return changes, None, at(state)


def check(data, changes, error, version):
    """The same whole, byte by byte, in odd pieces, and with more data behind it."""
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
         [Change("ADDED", Namespace("n"))], "7"),
        (event("INVENTED", {"metadata": {"resourceVersion": "106"}}), [None], "106"),
        (namespace("ADDED", "a", "107", team="x\ny\u2028{\U0001f680"),
         [change("ADDED", "a", team="x\ny\u2028{\U0001f680")], "107"),
        (b"", [], "100"),
    ],
)  # fmt: skip
def test_events(data, changes, version):
    """Each event and bookmark moves the version on, which is opaque: taken as it comes."""
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
    """An ERROR event and what is no event raise ApiError; what came before them counts."""
    check(line, [], error, "100")
    check(bookmark("101") + line, [None], error, "101")


def test_an_event_of_many_megabytes():
    """A line may be longer than any reader's limit: it is put together from its pieces."""
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


def test_an_error_event_is_as_the_same_status():
    """410 within a watch means what it means as its answer: list anew, from etcd."""
    state = watching()
    with pytest.raises(ApiError) as caught:
        list(state.feed(event("ERROR", STATUS_410)))
    assert state.failed(caught.value, listing=False) is Next.LIST
    assert at(state) == ""


def test_an_unreadable_error_event():
    """An ERROR event in invalid UTF-8 is an ApiError, as any other."""
    line = event("ERROR", {"code": 410, "message": "bad\xff"}).replace(b"\\u00ff", b"\xff")
    with pytest.raises(ApiError):
        list(watching().feed(line))


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


def test_each_watch_stands_alone():
    """The unfinished bytes of the last one do not count for the next."""
    state = watching()
    list(state.feed(bookmark("101") + b'{"type":"ADD'))
    assert state.watch_params()["resourceVersion"] == "101"
    assert list(state.feed(bookmark("102"))) == [None]
    state.ended(5.0)


SILENT = UpstreamError("timeout", "the API server fell silent", status=504)


def silent(state, data=b""):
    """What comes after a watch that is answered, brings this, and then nothing."""
    state.watch_params()
    state.opened()
    list(state.feed(data))
    return state.failed(SILENT, listing=False)


def test_watches_that_fall_silent():
    """The connection may be dead: watch again. Twice without a sign: ask for a list."""
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
    """It is waited for, and asked for what was asked of it: it has said nothing."""
    state = watching("100")
    state.opened()  # the watch before
    for _ in range(3 * PATIENCE):
        state.watch_params()
        assert state.failed(error, listing=False, lasted=400.0) is Next.WATCH
        assert state.failed(error, listing=True, lasted=400.0) is Next.LIST
    assert at(state) == "100"


CUT = UpstreamError("truncated", "the API server's answer was cut short")


def cut(state, data=b"", lasted=5.0):
    """What comes after a watch that is answered, brings this, and then is cut."""
    state.watch_params()
    state.opened()
    list(state.feed(data))
    return state.failed(CUT, listing=False, lasted=lasted)


def test_watches_that_are_cut():
    """Again and again before they bring anything, though they are answered: a list may get past."""
    state = watching("100")
    for _ in range(2):
        steps = [cut(state, b'{"type":"ADDED","obj') for _ in range(PATIENCE + 1)]
        assert steps == [Next.WATCH] * PATIENCE + [Next.LIST]
        state.listed("100")
    for number in range(101, 101 + 3 * PATIENCE):
        assert cut(state, bookmark(str(number))) is Next.WATCH


def ended(state):
    """What comes after a watch that ends as it should."""
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
    """What no event told and no error is then put right; a list starts the hour over."""
    state = watching()
    for _ in range(2):
        assert [watch(state) for _ in range(9)] == [before] * 8 + [then]
        state.listed("200")


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


def test_backoff_has_full_jitter():
    """Each delay is drawn from 0 to a bound: 0.8 s, doubling to 30 s."""
    drawn = []

    def draw(low, high):
        drawn.append((low, high))
        return high / 4

    backoff = Backoff(uniform=draw)
    delays = [backoff.delay(float(now)) for now in range(8)]
    bounds = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert drawn == [(0.0, bound) for bound in bounds]
    assert delays == [bound / 4 for bound in bounds]


AWAY = [
    UpstreamError("refused", "no"),
    UpstreamError("unreachable", "no"),
    UpstreamError("unresolved", "no"),
    UpstreamError("timeout", "no"),
    UpstreamError("disconnected", "no"),
]


@pytest.mark.parametrize("error", AWAY, ids=str)
def test_a_server_that_is_not_reached_is_probed_soon(error):
    """The delays stay within PROBE_LIMIT, and those for a server that answers begin anew."""
    state, backoff = watching(), Backoff(uniform=highest)
    delays = []
    for number in range(20):
        assert state.failed(error, listing=False) is Next.WATCH
        unreached = state.unreached(error, listing=False)
        delays.append(backoff.delay(float(number), unreached=unreached))
    assert delays == [0.8, 1.6, 3.2, 6.4] + [PROBE_LIMIT] * 16
    busy = ApiError(429, "TooManyRequests", "slow down")
    assert not state.unreached(busy, listing=False)
    answered = [backoff.delay(20.0 + number) for number in range(8)]
    assert answered == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, BACKOFF_LIMIT, BACKOFF_LIMIT]
    assert backoff.delay(30.0, unreached=True) == PROBE_LIMIT  # it is still the same outage


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("tls", "a certificate costs a handshake"),
        UpstreamError("proxy", "no"),
        ApiError(429, "TooManyRequests", "no"),
        ApiError(500, "InternalError", "no"),
        ApiError(503, "ServiceUnavailable", "no"),
    ],
    ids=str,
)
@pytest.mark.parametrize("listing", [True, False])
def test_a_server_that_answers_is_not_probed(error, listing):
    """It has the whole back-off."""
    assert not watching().unreached(error, listing=listing)


@pytest.mark.parametrize("reason", ["timeout", "disconnected", "truncated"])
def test_an_answer_that_breaks_off_is_no_outage(reason):
    """A watch that was answered, or a list that may have been, has the whole back-off."""
    state = watching()
    state.opened()
    error = UpstreamError(reason, "no")
    assert not state.unreached(error, listing=False)
    assert state.unreached(error, listing=True) == (reason == "timeout")


@pytest.mark.parametrize("between", [[], [ApiError(503, "ServiceUnavailable", "starting")]])
def test_a_410_after_an_outage_is_listed_at_once(between):
    """The time since the outage began has been waited already; another 410 waits its turn."""
    state = watching()
    gone = ApiError(410, "Expired", "too old")
    for error in [*AWAY * 4, *between]:
        assert state.failed(error, listing=False) is Next.WATCH
    state.opened()
    assert state.failed(gone, listing=False) is Next.LIST_AT_ONCE
    assert state.list_params()["resourceVersion"] == ""
    assert state.failed(gone, listing=True) is Next.LIST
    assert state.failed(AWAY[0], listing=True) is Next.LIST
    assert state.failed(gone, listing=True) is Next.LIST_AT_ONCE


@pytest.mark.parametrize("how", ["event", "list"])
def test_an_outage_ends_with_what_the_server_says(how):
    """An event or a list ends it: a later 410 is one of a server that was there."""
    state = watching()
    state.failed(AWAY[0], listing=False)
    if how == "event":
        assert list(state.feed(bookmark("101"))) == [None]
    else:
        state.listed("101")
    assert state.failed(ApiError(410, "Expired", "too old"), listing=False) is Next.LIST


def returned(processes, seed=1, away=300.0):
    """Per second after the return of an API server: how many processes reach it then.

    Before, the attempts of the last ten seconds, per second.
    """
    uniform = random.Random(seed).uniform
    before, after = 0, Counter()
    for _ in range(processes):
        backoff, now = Backoff(uniform=uniform), 0.0
        while now < away:
            before += now >= away - 10.0
            now += backoff.delay(now, unreached=True)
        after[int(now - away)] += 1
    return before / 10.0, [after[second] for second in range(max(after) + 1)]


def test_a_herd_comes_back_spread_out():
    """5,000 processes that lost the API server in the same moment: the figures of PROBE_LIMIT."""
    before, after = returned(5000)
    assert before == pytest.approx(1250, rel=0.1)
    assert sum(after) == 5000
    assert len(after) <= PROBE_LIMIT
    assert max(after) < 1300
    assert after[:7] == pytest.approx([1172, 1016, 859, 703, 547, 391, 234], rel=0.2)


@pytest.mark.parametrize(("quiet", "delay"), [(0.0, 3.2), (119.9, 3.2), (120.1, 0.8), (9e9, 0.8)])
def test_backoff_starts_over_after_two_quiet_minutes(quiet, delay):
    """Without a failure for that long, the next is the first again, and doubles from there."""
    backoff = Backoff(uniform=highest)
    backoff.delay(1000.0)
    backoff.delay(1010.0)
    assert backoff.delay(1010.0 + quiet) == delay
    assert backoff.delay(1010.0 + quiet) == delay * 2


def test_backoff_never_undercuts_what_the_server_asked_for():
    """Retry-After is the least, and the jitter still spreads those who got the same."""
    backoff = Backoff(uniform=highest)
    assert backoff.delay(0.0, at_least=5.0) == pytest.approx(5.8)
    assert Backoff(uniform=min).delay(0.0, at_least=5.0) == 5.0


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
    """The Status object tells more than the answer's line; any other body does no harm."""
    error = parse_status(code, body, header)
    assert (error.code, error.reason, error.retry_after) == expected
    assert "planted" not in error.summary
