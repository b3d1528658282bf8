"""A cache with bounds: what is dropped, what is found, and what the entries weigh."""

import random
import tracemalloc
from collections import OrderedDict

from kmproxy.bounded_cache import ENTRY, BoundedCache


def test_lifetimes():
    """A value is found until its time. After it, the cache knows of it but does not give it."""
    cache = BoundedCache(2)
    cache.put(b"a", False, 10.0)
    assert cache.get(b"a", 9.99) is False
    assert cache.get(b"a", 10.0) is None
    assert cache.get(b"a") is False
    assert b"a" in cache
    assert b"b" not in cache
    cache.put(b"b", True)
    assert cache.get(b"b", 1e300) is True


def test_a_bound_in_number():
    """The entry that was not used for the longest time makes room."""
    cache = BoundedCache(2)
    cache.put(b"a", 1, 10.0)
    cache.put(b"b", 2, 10.0)
    assert cache.get(b"a", 0.0) == 1
    cache.put(b"c", 3, 10.0)
    cache.put(b"c", 4, 10.0)
    assert [cache.get(key, 0.0) for key in (b"a", b"b", b"c")] == [1, None, 4]
    assert (repr(cache), cache.weight) == ("<BoundedCache 2 of at most 2>", 2 * ENTRY)


def test_a_bound_in_bytes():
    """All entries together weigh no more than they may. A replaced one does not count."""
    cache = BoundedCache(100, size=10, weigh=lambda _, value: len(value))
    for key, value in ((b"a", "aaaa"), (b"b", "bbbb"), (b"b", "bbbbbb"), (b"a", "a")):
        cache.put(key, value)
    assert [cache.get(key) for key in (b"b", b"a")] == ["bbbbbb", "a"]
    cache.put(b"c", "cccc")
    assert [cache.get(key) for key in (b"b", b"a", b"c")] == [None, "a", "cccc"]


def test_a_value_that_is_too_heavy():
    """It is not kept, nor is the value before it, and no other entry makes room for it."""
    cache = BoundedCache(100, size=10, weigh=lambda _, value: len(value))
    cache.put(b"a", "a")
    cache.put(b"b", "b")
    cache.put(b"b", "b" * 11)
    assert (list(cache.items()), cache.weight) == ([(b"a", "a")], 1)


def test_the_order_of_use():
    """To look without taking is no use."""
    cache = BoundedCache(9)
    for key in "abc":
        cache.put(key, key.upper())
    assert "a" in cache
    assert cache.get("b") == "B"
    assert list(cache.items()) == [("a", "A"), ("c", "C"), ("b", "B")]
    assert cache.values() == ["A", "C", "B"]
    cache.drop("c")
    cache.drop("unknown")
    assert (cache.values(), cache.weight, len(cache)) == (["A", "B"], 2 * ENTRY, 2)


def test_what_has_expired_makes_room():
    """From the entry that was not used for the longest time, to the first that lasts."""
    cache = BoundedCache(9)
    for number, key in enumerate("abcd"):
        cache.put(key, number, 10.0 + number)
    cache.expire(9.0)
    assert len(cache) == 4
    cache.expire(11.0)
    assert (cache.values(), cache.weight) == ([2, 3], 2 * ENTRY)
    assert cache.get("c") == 2
    cache.expire(12.5)
    assert cache.values() == [3, 2]  # the older one was used since
    cache.expire(13.0)
    assert (len(cache), cache.weight) == (0, 0)


def test_it_does_what_a_simple_model_does():
    """Under random uses: the same entries in the same order, and never more than the bounds."""
    chance = random.Random(14)
    cache = BoundedCache(5, size=60, weigh=lambda key, value: key + value)
    model = OrderedDict()
    for _ in range(5000):
        key, value = chance.randrange(12), chance.randrange(20)
        match chance.randrange(3):
            case 0:
                assert cache.get(key) == model.get(key)
                if key in model:
                    model.move_to_end(key)
            case 1:
                cache.put(key, value)
                model.pop(key, None)
                model[key] = value
                while len(model) > 5 or sum(model) + sum(model.values()) > 60:
                    model.popitem(last=False)
            case _:
                cache.drop(key)
                model.pop(key, None)
        assert list(cache.items()) == list(model.items())
        assert cache.weight == sum(model) + sum(model.values())


def test_the_weight_of_an_entry():
    """A key of 32 bytes, its time and its place take no more than is counted for them."""
    cache, chance = BoundedCache(4096), random.Random(15)
    tracemalloc.start()
    try:
        for number in range(4096):
            cache.put(chance.randbytes(32), True, float(number))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) == 4096
    assert taken <= cache.weight
