"""Equal lines of one nanosecond."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kmproxy.logs.nanoseconds import MAX_LAST, Nanoseconds

LINES = st.lists(
    st.tuples(st.sampled_from([b"one", b"two"]), st.integers(0, 4), st.sampled_from([b"", b"x", b"y"])),
    max_size=40,
)  # fmt: skip


@given(LINES)
def test_no_two_equal_lines_share_a_nanosecond(lines):
    """Within a batch, of each stream; a line alone keeps its own, and none comes earlier."""
    nanoseconds = Nanoseconds({})
    placed = [
        (labels, nanoseconds.of(labels).place(time, text), text) for labels, time, text in lines
    ]
    assert len(set(placed)) == len(placed)
    assert all(after[1] >= before[1] for before, after in zip(lines, placed, strict=True))
    if max(Counter(lines).values(), default=0) == 1 and len({line[2] for line in lines}) == len(
        lines
    ):
        assert placed == lines


@given(st.lists(LINES, max_size=6))
def test_equal_lines_in_a_row_over_batches(batches):
    """The same line right after itself has another nanosecond, in whatever batch it is."""
    last, kept = {}, {}
    for lines in batches:
        nanoseconds = Nanoseconds(last)
        for labels, time, text in lines:
            placed = nanoseconds.of(labels).place(time, text), text
            assert kept.get(labels) != placed
            kept[labels] = placed
        last = nanoseconds.ends()


def test_very_many_equal_lines():
    """A hundred thousand of one nanosecond, and of those after it, in linear time."""
    nanoseconds = Nanoseconds({})
    times = [*range(50_000), *[0] * 50_000, *range(50_000)]
    placed = [nanoseconds.of(b"").place(time, b"x") for time in times]
    assert sorted(placed) == list(range(150_000))


def test_what_is_remembered_is_bounded():
    """The latest streams, whatever the number of streams."""
    last = {}
    for batch in range(3):
        nanoseconds = Nanoseconds(last)
        for number in range(900):
            nanoseconds.of(b"%d/%d" % (batch, number)).place(1, b"x")
        last = nanoseconds.ends()
    assert len(last) == MAX_LAST
    assert b"2/0" in last
