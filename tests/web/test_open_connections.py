"""The limits of open connections: which is admitted, and which is closed for another."""

from __future__ import annotations

import random

import pytest

from kmproxy.web.open_connections import OpenConnections, network


class Conn:
    """A connection that records why it was cut."""

    def __init__(self):
        self.why = None

    def cut(self, reason):
        assert self.why is None
        self.why = reason


def book(most, head_bytes=1000):
    """The open connections, and a function that adds connections."""
    made = OpenConnections(most, head_bytes=head_bytes)

    def come(number=1, host="10.0.0.1"):
        new = [Conn() for _ in range(number)]
        assert all([made.admit(each, host) for each in new])  # noqa: C419 - all of them
        return new

    return made, come


def know(made, connections, *, rests=True, by_address=False):
    """Marks the callers as known, and answers their requests."""
    for each in connections:
        made.ask(each)
        made.know(each, by_address=by_address)
        if rests:
            made.rest(each)


def cut(connections):
    """The connections that were cut."""
    return [number for number, each in enumerate(connections) if each.why]


def test_strangers_go_before_the_known():
    """Unknown callers are closed first, never a connection with a known caller."""
    made, come = book(128)
    good = come(30)
    know(made, good)
    for _ in range(500):
        (new,) = come(1, "10.0.0.2")
        made.ask(new)
    assert cut(good) == []
    assert len(made) <= 128


def test_strangers_have_a_share_of_the_whole():
    """Unknown callers get at most three quarters, even without known ones."""
    made, come = book(128)
    come(500)
    assert len(made) == 96


def test_the_address_with_the_most_gives_one_up():
    """The address with the most connections loses its oldest one. A single one stays."""
    _, come = book(16)
    (other,) = come(1, "10.0.0.9")
    crowd = come(40)
    assert other.why is None
    assert cut(crowd) == list(range(29))


def test_who_has_asked_in_vain_goes_before_newcomers():
    """Refused callers go before new ones, whatever their age. Answers do not renew it."""
    made, come = book(4)
    silent, tried, again = come(3)
    for each in (again, tried, again):
        made.ask(each)
        made.rest(each)
    come()
    assert (silent.why, tried.why, again.why) == (None, "limit", None)
    come()
    assert (silent.why, again.why) == (None, "limit")


def test_the_known_that_rests_longest_makes_room():
    """With known callers only, the one idle longest goes. No request is ended."""
    made, come = book(3)
    conns = []
    for _ in range(3):
        conns += come()
        know(made, conns[-1:])
    made.ask(conns[0])
    made.rest(conns[0])
    come()
    assert cut(conns) == [1]


def test_no_room():
    """With a request of a known caller on every connection, a new one is refused."""
    made, come = book(2)
    conns = come(1)
    know(made, conns, rests=False)
    conns += come(1)
    know(made, conns[1:], rests=False)
    assert not made.admit(Conn(), "10.0.0.3")
    assert cut(conns) == []
    made.forget(conns[0])
    assert made.admit(Conn(), "10.0.0.3")


def test_newcomers_do_not_end_one_another():
    """With idle known callers everywhere, unknown callers get an eighth."""
    made, come = book(64)
    known = []
    for _ in range(64):
        known += come()
        know(made, known[-1:])
    new = come(8)
    assert cut(known) == list(range(8))
    assert cut(new) == []
    new += come(20)
    assert len(cut(known)) == 9
    assert len(cut(new)) == 19


def test_callers_that_only_their_address_tells_apart():
    """Without names, the fullest address loses a connection. Named callers share one."""
    for by_address, lost in ((True, []), (False, [0])):
        made, come = book(10)
        few = come(1, "10.0.0.1")
        know(made, few, by_address=by_address)
        for _ in range(9):
            know(made, come(1, "10.0.0.2"), by_address=by_address)
        come(1, "10.0.0.3")
        assert cut(few) == lost


def test_heads_together():
    """Over the bound, the largest head of an unknown caller goes. Known callers are exempt."""
    made, come = book(10)
    known, small, large, last = come(4)
    know(made, [known], rests=False)
    assert made.hold(known, 900)
    assert made.hold(small, 400)
    assert made.hold(large, 500)
    assert made.hold(last, 300)
    assert large.why == "heads"
    assert (known.why, small.why, last.why) == (None, None, None)
    assert not made.hold(last, 700)
    assert last.why == "heads"
    assert made.hold(small, 1000)


def test_a_head_that_was_answered_is_not_counted():
    """Heads of answered requests and of ended connections are not counted."""
    made, come = book(10)
    first, second = come(2)
    assert made.hold(first, 900)
    made.rest(first)
    assert made.hold(second, 900)
    made.forget(second)
    assert made.hold(first, 900)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_networks(host, group):
    """A /64 of IPv6 counts as one address, because one client can use all of it."""
    assert network(host) == group


def test_whatever_happens():
    """The numbers hold, no connection is cut twice, and no known caller's request is ended."""
    rng = random.Random(7)
    made, alive, working = OpenConnections(12, head_bytes=100), [], set()
    for _ in range(20_000):
        alive = [each for each in alive if each.why is None]
        assert not [each for each in working if each.why]
        assert len(made) == len(alive) <= 12
        assert made._heads == sum(entry.head for entry in made._entries.values()) <= 100
        assert len(made._strangers) == sum(not entry.known for entry in made._entries.values())
        action = rng.randrange(7)
        if action < 2 or not alive:
            new = Conn()
            if made.admit(new, rng.choice(("10.0.0.1", "10.0.0.2", "::1"))):
                alive.append(new)
            continue
        each = rng.choice(alive)
        if action == 2:
            made.ask(each)
        elif action == 3:
            made.ask(each)
            made.know(each, by_address=rng.random() < 0.5)
            working.add(each)
        elif action == 4:
            made.rest(each)
            working.discard(each)
        elif action == 5:
            made.hold(each, rng.randrange(40))
        else:
            made.forget(each)
            working.discard(each)
            alive.remove(each)
    assert repr(made).startswith("<OpenConnections ")
