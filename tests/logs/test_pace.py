"""When a log file is asked for again."""

from kmproxy.logs.pace import Pace


def test_slower_and_slower_while_nothing_comes():
    """From a second to ten, and a second again after a line."""
    pace = Pace()
    waits = [pace.next(is_active=False, is_ending=False) for _ in range(8)]
    assert waits == [1.5, 2.25, 3.375, 5.0625, 7.59375, 10.0, 10.0, 10.0]
    assert pace.next(is_active=True, is_ending=False) == 1.0


def test_a_container_that_ends():
    """Four times a second, however long nothing came."""
    pace = Pace(wait=10.0)
    assert pace.next(is_active=False, is_ending=True) == 0.25
    assert pace.next(is_active=True, is_ending=True) == 0.25
