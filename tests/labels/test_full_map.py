"""A map of labels that is full: what a change costs then, and that the largest give way."""

from __future__ import annotations

import random
import sys

import pytest

from kmproxy.labels.label_map import Listing
from kmproxy.labels.rendering import Rendering


def pair(size):
    """Labels of so many bytes."""
    return b',a="' + b"x" * (size - 5) + b'"'


def listing(count, size, limit, otherwise=b""):
    """A listing with so many namespaces, each with labels of so many bytes."""
    full = Listing(otherwise, limit)
    for number in range(count):
        full.put(b"n%d" % number, Rendering(pair(size)))
    return full


def calls(work):
    """The functions that some work calls, each call counted, those of the library's C code, too."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("otherwise", [b"", pair(20)])
def test_a_change_costs_the_same_in_a_larger_map(otherwise):
    """Over the limit, with labels that can be shortened and with none that can."""
    spent = []
    for count in (200, 2000):
        full = listing(count, 20, limit=count * 10, otherwise=otherwise)

        def change(full=full):
            for number in range(100):
                full.put(b"n%d" % number, Rendering(pair(20)))

        change()  # the first changes may find what can be shortened
        spent.append(calls(change))
    assert spent[1] < 2 * spent[0] < 10_000


def test_the_heap_does_not_grow_with_changes():
    """Entries that are outdated are dropped, also while the map is under its limit."""
    full = listing(100, 30, limit=2000)
    for number in range(100):
        full.put(b"n%d" % number, Rendering(b""))
    for turn in range(10_000):
        full.put(b"n%d" % (turn % 10), Rendering(pair(20 + turn % 7)))
    assert len(full.heap or ()) <= 2 * 100 + 64


def test_as_by_sorting():
    """The namespaces that are shortened are those with the most bytes, whatever came before."""
    chance = random.Random(1)
    limit, otherwise = 3000, pair(12)
    full = Listing(otherwise, limit)
    known = {}
    for _ in range(3000):
        name = b"n%d" % chance.randrange(120)
        if chance.random() < 0.1:
            full.discard(name)
            known.pop(name, None)
        else:
            known[name] = pair(chance.randrange(8, 90))
            full.put(name, Rendering(known[name]))
        if sum(map(len, known.values())) > limit:
            enough = limit - limit // 16
            for each in sorted(known, key=lambda name: (-len(known[name]), name)):
                if sum(map(len, known.values())) <= enough:
                    break
                if len(known[each]) > len(otherwise):
                    known[each] = otherwise
        assert full.rendered == known
        assert full.held == sum(map(len, known.values()))
