"""How much each asker may have, by a clock that is passed in."""

from kmproxy.allowances import MAX_NAME, Allowances


def test_a_burst_and_then_a_rate():
    """What was taken comes back with time, never beyond the burst; nobody takes from another."""
    allowances = Allowances(burst=3, interval=2.0)
    for _ in range(3):
        assert allowances.has_left("eve", 0.0)
        allowances.take("eve", 0.0)
    assert not allowances.has_left("eve", 1.9)
    assert allowances.has_left("ann", 0.0)
    assert allowances.has_left("eve", 2.0)
    allowances.take("eve", 2.0)
    assert not allowances.has_left("eve", 3.0)
    for _ in range(3):
        assert allowances.has_left("eve", 1000.0)
        allowances.take("eve", 1000.0)
    assert not allowances.has_left("eve", 1000.0)
    assert repr(allowances) == "<Allowances of 1 askers>"


def test_more_than_there_is():
    """Who takes what is not there, as many do at once, owes it, but never more than a burst."""
    allowances = Allowances(burst=2, interval=1.0)
    for _ in range(3):
        allowances.take("eve", 0.0)
    assert not allowances.has_left("eve", 1.9)
    assert allowances.has_left("eve", 2.0)
    for _ in range(1000):
        allowances.take("eve", 2.0)
    assert not allowances.has_left("eve", 4.9)
    assert allowances.has_left("eve", 5.0)


def test_askers_are_bounded():
    """In number, and each in the length of its name."""
    allowances = Allowances(burst=1, interval=1.0, size=2)
    for name in ("a", "b", "c"):
        allowances.take(name * 1000, 0.0)
    assert [len(name) for name, _ in allowances._held.items()] == [MAX_NAME, MAX_NAME]
    assert [allowances.has_left(name * 1000, 0.0) for name in "abc"] == [True, False, False]
