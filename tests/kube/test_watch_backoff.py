"""The back-off: random, bounded, and never shorter than the server asked for."""

import random
from collections import Counter

import pytest

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.backoff import BACKOFF_LIMIT, PROBE_LIMIT, Backoff
from kmproxy.kube.watch import Next
from tests.support.watch_events import bookmark, watching


def highest(low, high):
    """A random source that always draws the upper bound."""
    assert low <= high
    return high


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
