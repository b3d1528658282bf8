"""Allowances: the rate of each caller, by a clock that is passed in."""

from kmproxy.allowances import MAX_NAME, Allowances


def test_a_burst_and_then_a_rate():
    """A used allowance returns with time, up to the burst. Callers are independent."""
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
    """A caller that takes more than it has owes it, at most a burst."""
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
    """The number of callers and the length of their names are bounded."""
    allowances = Allowances(burst=1, interval=1.0, size=2)
    for name in ("a", "b", "c"):
        allowances.take(name * 1000, 0.0)
    assert [len(name) for name, _ in allowances._held.items()] == [MAX_NAME, MAX_NAME]
    assert [allowances.has_left(name * 1000, 0.0) for name in "abc"] == [True, False, False]
