"""The positions as text: what comes back, what is refused, what is dropped."""

import hashlib

import pytest

from kmproxy.errors import PositionsError
from kmproxy.logs.lines import Container
from kmproxy.logs.positions import FilePosition, Point, PositionBook, decode

HERE = FilePosition(3, Point("20261130-030910", 700, 64, 12345), Point("", 12, 12, 9), ("stdout",))
THERE = FilePosition(0, Point())
KEY, OTHER = ("uid-1", "web"), ("uid-1", "sidecar")


def book(positions, now=100_000.0, **bounds):
    """A book of positions, all seen at the same time."""
    made = PositionBook(**bounds)
    for key, position in positions.items():
        made.set(key, position, now)
    return made


def sealed(rest, head=b"kmproxy-positions 1 "):
    """A text with the right checksum."""
    return head + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def test_what_is_written_is_read():
    """Every position comes back under its key."""
    text = book({KEY: HERE, OTHER: THERE}).encode(100_000.0)
    again = PositionBook()
    again.restore(text)
    assert (again.get(KEY), again.get(OTHER), again.get(("uid-2", "web"))) == (HERE, THERE, None)
    assert not again.changed
    assert again.encode(100_000.0) == text


def test_a_book_without_positions():
    """Its text is valid."""
    assert decode(PositionBook().encode(0.0)) == []


def test_a_change_is_seen():
    """Only a moved position asks for a write, not a look at the container."""
    made = book({KEY: HERE})
    assert made.changed
    made.encode(100_000.0)
    made.set(KEY, HERE, 100_001.0)
    assert not made.changed
    made.set(KEY, THERE, 100_001.0)
    assert made.changed


def test_a_container_that_is_gone_is_dropped_after_a_day():
    """Not before, and not while it is seen."""
    made = book({KEY: HERE, OTHER: THERE}, now=100_000.0)
    made.set(OTHER, THERE, 100_000.0 + 3600)
    assert len(decode(made.encode(100_000.0 + 86_400))) == 2
    assert [each.container for each in decode(made.encode(100_000.0 + 86_401))] == ["sidecar"]
    made = book({KEY: HERE}, kept=5.0)
    assert decode(made.encode(100_006.0)) == []


def test_a_book_is_bounded_in_bytes():
    """What was seen longest ago is left out, and counted."""
    made = PositionBook(max_bytes=3000)
    for number in range(100):
        made.set((f"uid-{number}", "web"), HERE, 1000.0 + number)
    text = made.encode(1100.0)
    kept = [each.uid for each in decode(text)]
    assert len(text) <= 3000
    assert kept == [f"uid-{number}" for number in range(99, 99 - len(kept), -1)]
    assert made.left_out == 100 - len(kept) > 0


ENTRY = (
    b'{"uid":"u","container":"c","seen":1,"position":{"type":"file","instance":0,"done":{%s}%s}}'
)

NAMED = (ENTRY % (b"", b""))[:-1] + b',"namespace":"%s","pod":"%s"}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not a positions file"),
        (b"\x00" * 100, "not a positions file"),
        (b"kmproxy-labels 3 abc\n[]\n", "not a positions file"),
        (sealed(b"[]\n", b"kmproxy-positions 2 "), "has the version 2 of the format"),
        (b"kmproxy-positions 1 abc\n[]\n", "checksum"),
        (sealed(b"[]\n")[:-1], "checksum"),
        (sealed(b"[]\n") + b"x", "checksum"),
        (sealed(b""), "does not hold positions"),
        (sealed(b"{}"), "does not hold positions"),
        (sealed(b'[{"uid":"u"}]'), "does not hold positions"),
        (
            sealed(b"[" + ENTRY.replace(b'"file"', b'"odd"') % (b"", b"") + b"]"),
            "does not hold positions",
        ),
        (sealed(b"[" + ENTRY % (b'"offset":-1', b"") + b"]"), "impossible"),
        (sealed(b"[" + ENTRY % (b'"offset":5', b"") + b"]"), "impossible"),
        (sealed(b"[" + ENTRY % (b'"offset":5,"back":6', b"") + b"]"), "impossible"),
        (sealed(b"[" + ENTRY % (b'"offset":99999,"back":32769', b"") + b"]"), "impossible"),
        (sealed(b"[" + ENTRY.replace(b'"u"', b'""') % (b"", b"") + b"]"), "impossible"),
        (sealed(b"[" + ENTRY % (b"", b',"start":{"offset":5,"back":5}') + b"]"), "impossible"),
        (sealed(b"[" + ENTRY % (b"", b',"skipping":["all"]') + b"]"), "impossible"),
        (sealed(b"[" + NAMED % (b"..", b"p") + b"]"), "impossible"),
        (sealed(b"[" + NAMED % (b"n", b"a/../b") + b"]"), "impossible"),
        (sealed(b"[" + NAMED % (b"n", b"") + b"]"), "impossible"),
        (sealed(b"[" + NAMED % (b"", b"p") + b"]"), "impossible"),
        (sealed(b"[" + NAMED.replace(b'"u"', b'"../u"') % (b"n", b"p") + b"]"), "impossible"),
    ],
)
def test_a_text_that_is_refused(text, problem):
    """It says why in one line, and the book keeps its positions."""
    made = book({KEY: HERE})
    with pytest.raises(PositionsError, match=problem) as caught:
        made.restore(text)
    assert "\n" not in str(caught.value)
    assert made.get(KEY) == HERE


def test_the_entries_of_the_table_are_good_but_for_their_fault():
    """So that the table does not pass for another reason."""
    assert len(decode(sealed(b"[" + ENTRY % (b'"offset":5,"back":5', b"") + b"]"))) == 1
    assert len(decode(sealed(b"[" + NAMED % (b"n", b"p.q-1") + b"]"))) == 1


def test_who_is_gone_after_a_restart():
    """Those whose end was not read. A day counts from then on, so no position is lost before."""
    made = book({})
    for number, state in enumerate([(False, True), (False, False), (True, False), (False, False)]):
        owner = Container(f"uid-{number}", "shop", f"web-{number}", "app", "node-1")
        is_over, is_behind = state
        made.keep(owner, HERE, 1000.0, is_over=is_over, is_behind=is_behind)
    new = Container("new", "shop", "web-9", "app", "node-1")
    made.keep(new, None, 1000.0, is_over=False, is_behind=True)
    made.set(("old", "app"), HERE, 1000.0)  # of an older version: nobody knows its pod
    week = 1000.0 + 7 * 24 * 3600
    again = PositionBook()
    again.restore(made.encode(1000.0))
    again.restore(again.encode(week))
    gone = again.gone({"uid-3"}, week)
    assert [each.uid for each, _ in gone] == ["uid-0", "uid-1", "new"]
    assert gone[2] == (new, None)
    assert again.get(("new", "app")) is None
    assert gone[0] == (Container("uid-0", "shop", "web-0", "app", "node-1"), HERE)
    assert [again.is_behind((f"uid-{number}", "app")) for number in range(5)] == [
        True, False, False, False, True,
    ]  # fmt: skip
    again.encode(week + 23 * 3600)
    assert again.get(("uid-0", "app")) == HERE
    again.encode(week + 25 * 3600)
    assert again.get(("uid-0", "app")) is None


def test_a_state_that_has_changed_is_written():
    """Else a restart would go by the old one."""
    made, owner = book({}), Container("uid-1", "shop", "web-0", "app", "node-1")
    for state in ((False, True), (False, False), (True, False)):
        made.encode(1000.0)
        made.keep(owner, HERE, 1000.0, is_over=state[0], is_behind=state[1])
        assert made.changed
    made.encode(1000.0)
    made.keep(owner, HERE, 1001.0, is_over=True, is_behind=False)
    assert not made.changed
