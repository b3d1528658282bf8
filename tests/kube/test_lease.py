"""Who may take a Lease, and what is written, by the rules of client-go."""

import json

import pytest

from kmproxy.errors import ApiError
from kmproxy.kube.lease import Election, LeaseTimes

NOTE = "kmproxy/test"


def election(identity="a"):
    """One process's view."""
    return Election("the-lease", "ops", identity, NOTE)


def stored(document, version="1"):
    """The Lease as the API server has it after a write."""
    meta = document["metadata"] | {"resourceVersion": version, "uid": "u"}
    return json.dumps(document | {"metadata": meta}).encode()


def test_a_new_lease():
    """The first process creates it, with every field."""
    one = election()
    one.observe(None, 0.0)
    assert one.may_take(0.0)
    document = one.written(1796058000.25, "here")
    assert document == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "the-lease", "namespace": "ops", "annotations": {NOTE: "here"}},
        "spec": {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-11-30T17:00:00.250000Z",
            "renewTime": "2026-11-30T17:00:00.250000Z",
            "leaseTransitions": 0,
        },
    }


def test_a_renewal():
    """It keeps the time of the acquisition, the transitions, and what others have written."""
    one = election()
    one.observe(None, 0.0)
    first = one.written(1796058000, None)
    first["metadata"]["labels"] = {"app": "x"}
    one.observe(stored(first), 0.0)
    again = one.written(1796058002, "text")
    assert again["metadata"]["resourceVersion"] == "1"
    assert again["metadata"]["labels"] == {"app": "x"}
    assert again["spec"]["acquireTime"].startswith("2026-11-30T17:00:00")
    assert again["spec"]["renewTime"].startswith("2026-11-30T17:00:02")
    assert again["spec"]["leaseTransitions"] == 0


def test_another_holder():
    """Its Lease is taken when it has not changed for its duration, by the clock of the taker.

    The times in it come from another clock, and do not count.
    """
    holder, other = election("a"), election("b")
    holder.observe(None, 0.0)
    lease = holder.written(4_000_000_000, "text")  # a clock of the year 2096
    other.observe(stored(lease), 100.0)
    assert not other.may_take(114.9)
    other.observe(stored(lease, "2"), 110.0)  # only its metadata have changed
    assert other.may_take(115.0)
    holder.observe(stored(lease), 0.0)
    other.observe(stored(holder.written(4_000_000_002, "more"), "3"), 114.0)
    assert not other.may_take(115.0)
    assert other.may_take(129.0)
    taken = other.written(1796058000, None)
    assert taken["spec"]["holderIdentity"] == "b"
    assert taken["spec"]["leaseTransitions"] == 1
    assert taken["metadata"]["annotations"] == {NOTE: "more"}
    assert other.text == "more"


def test_a_released_lease():
    """It may be taken at once, and keeps the position."""
    holder, other = election("a"), election("b")
    holder.observe(None, 0.0)
    holder.observe(stored(holder.written(1796058000, None)), 0.0)
    released = holder.written(1796058001, "end", release=True)
    assert released["spec"]["holderIdentity"] == ""
    assert released["spec"]["leaseDurationSeconds"] == 1
    other.observe(stored(released), 5.0)
    assert other.may_take(5.0)
    assert other.text == "end"
    assert other.written(0, None)["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize(("seconds", "after"), [(-5, 1), (0, 15), (None, 15), (10**15, 3600)])
def test_impossible_durations(seconds, after):
    """A Lease that somebody has edited does not stop the election for ever."""
    other = election("b")
    spec = {"holderIdentity": "x", "leaseDurationSeconds": seconds}
    other.observe(json.dumps({"metadata": {}, "spec": spec}).encode(), 0.0)
    assert not other.may_take(after - 0.1)
    assert other.may_take(after)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"metadata":5}', b"[" * 9999, b"\xff"])
def test_garbage(data):
    """It is an error of the API server."""
    with pytest.raises(ApiError):
        election().observe(data, 0.0)


def test_the_times_leave_a_margin():
    """A holder gives up before another process may begin, also if one renewal takes long."""
    times = LeaseTimes()
    assert times.deadline + 4 <= times.duration
    assert times.retry * 3 <= times.deadline
