"""Reading CRI lines: what is a line, what joins, what is cut."""

import pytest

from kmproxy.logs.cri import CriReader
from kmproxy.logs.positions import Open, Point

T = b"2026-11-30T03:09:10.108472166Z"
NS = 1_796_008_150_108_472_166
LIMIT = 20


def read(*pieces, limit=LIMIT):
    """The entries of pieces of a file."""
    cri = CriReader(limit)
    return [entry for piece in pieces for entry in cri.feed(piece)]


def shown(entries):
    """What an entry says, without its place."""
    return [(each.stream, each.text, each.fault) for each in entries]


@pytest.mark.parametrize(
    ("line", "time", "stream", "text"),
    [
        (T + b" stdout F hello", NS, "stdout", b"hello"),
        (T + b" stderr F ", NS, "stderr", b""),
        (T + b" stdout F  two spaces ", NS, "stdout", b" two spaces "),
        (T + b" stdout F \xff\x00\r", NS, "stdout", b"\xff\x00\r"),
        (T + b" stdout F:tag more", NS, "stdout", b"more"),
        (b"2026-11-30T04:09:10.108472166+01:00 stdout F x", NS, "stdout", b"x"),
        (b"2026-11-30T03:09:10.1Z stdout F x", NS // 10**9 * 10**9 + 10**8, "stdout", b"x"),
        (b"2026-11-30T03:09:10Z stdout F x", NS // 10**9 * 10**9, "stdout", b"x"),
        (b"1969-12-31T23:59:59.5Z stdout F x", -(10**9) + 5 * 10**8, "stdout", b"x"),
    ],
)
def test_a_line(line, time, stream, text):
    """Its time in nanoseconds, its stream, its text."""
    (entry,) = read(line + b"\n")
    assert (entry.time, entry.stream, entry.text, entry.fault) == (time, stream, text, "")
    assert (entry.end, entry.back, entry.open) == (len(line) + 1, len(line) + 1, Open())


@pytest.mark.parametrize(
    "line",
    [
        b"", b"hello", b" " + T + b" stdout F x", T + b" stdin F x", T + b" stdout X x",
        T + b" stdout F", T + b" stdout", T + b"stdout F x", b"2026-11-30 03:09:10Z stdout F x",
        b"2026-13-30T03:09:10Z stdout F x", b"2026-11-30T24:09:10Z stdout F x",
        b"2026-11-30T03:09:10 stdout F x", b"2026-11-30T03:09:10.Z stdout F x",
        b"2026-11-30T03:09:10.1234567891Z stdout F x", b"2026-11-30T03:09:10+99:00 stdout F x",
        T + b" stdout F:" + b"t" * 40 + b" x", b"\x00" * 300, b"x" * 5000,
        b'{"log":"hello\\n","stream":"stdout","time":"2026-11-30T03:09:10Z"}',
        "\uff12026-11-30T03:09:10Z stdout F x".encode(),
    ],
)  # fmt: skip
def test_not_a_line(line):
    """An entry without a stream, and the next line is read all the same."""
    for pieces in ([line + b"\n"], [line, b"\n"], [line[:7], line[7:] + b"\n"]):
        bad, good = read(*pieces, T + b" stdout F x\n")
        assert (bad.stream, bad.text, bad.end) == ("", b"", len(line) + 1)
        assert (good.text, good.end) == (b"x", len(line) + 1 + len(T) + 12)


def test_docker_is_known_by_name():
    """Docker's JSON lines are told from other text."""
    cri = CriReader(LIMIT)
    cri.feed(b"hello\n" + T + b' stdout F {"log":\n')
    assert not cri.is_docker
    cri.feed(b'{"log":"hello\\n","stream":"stdout","time":"2026-11-30T03:09:10Z"}\n')
    assert cri.is_docker


def lines(*each):
    """A file of lines, given as stream, tag and text; the time is the number of the line."""
    return b"".join(
        b"1970-01-01T00:00:%02dZ %s\n" % (number, line) for number, line in enumerate(each)
    )


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (["stdout P a", "stdout P b", "stdout F c"], [(0, "stdout", b"abc", "")]),
        (["stdout P a", "stdout F "], [(0, "stdout", b"a", "")]),
        (["stdout P a", "stderr F x", "stdout F c"], [(1, "stderr", b"x", ""), (0, "stdout", b"ac", "")]),
        (["stdout P a", "stderr P x", "stdout F b", "stderr F y"],
         [(0, "stdout", b"ab", ""), (1, "stderr", b"xy", "")]),
        (["stdout F " + "x" * 20], [(0, "stdout", b"x" * 20, "")]),
        (["stdout F " + "x" * 21, "stdout F y"], [(0, "stdout", b"x" * 20, "cut"), (1, "stdout", b"y", "")]),
        (["stdout P " + "x" * 20, "stdout F "], [(0, "stdout", b"x" * 20, "")]),
        (["stdout P " + "x" * 20, "stdout F y"], [(0, "stdout", b"x" * 20, "cut")]),
        (["stdout P " + "x" * 15, "stdout P " + "y" * 15, "stdout P z", "stdout F z", "stdout F n"],
         [(0, "stdout", b"x" * 15 + b"y" * 5, "cut"), (4, "stdout", b"n", "")]),
        (["stdout P " + "x" * 30, "stderr F e", "stdout P z", "stderr F e", "stdout F z", "stdout F n"],
         [(0, "stdout", b"x" * 20, "cut"), (1, "stderr", b"e", ""), (3, "stderr", b"e", ""), (5, "stdout", b"n", "")]),
        (["stdout F " + "x" * 900, "stdout F n"], [(0, "stdout", b"x" * 20, "cut"), (1, "stdout", b"n", "")]),
        (["stdout P " + "x" * 900, "stdout F y", "stdout F n"], [(0, "stdout", b"x" * 20, "cut"), (2, "stdout", b"n", "")]),
        (["stdout P a"], []),
    ],
)  # fmt: skip
def test_parts_join_and_long_lines_are_cut(file, expected):
    """Each stream by itself, with the first part's time; at any cut of the file."""
    data = lines(*(each.encode() for each in file))
    whole = read(data)
    assert [(each.time // 10**9, each.stream, each.text, each.fault) for each in whole] == expected
    for size in (1, 2, 7, 31, 200):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        again = read(*pieces)
        assert shown(again) == shown(whole)
        assert [(each.end, each.open) for each in again] == [
            (each.end, each.open) for each in whole
        ]


def test_a_part_in_each_of_two_files():
    """A line goes on in the file after a rotation. Its start is in the first file."""
    cri = CriReader(LIMIT)
    first = lines(b"stderr F x", b"stdout P a")
    assert shown(cri.feed(first)) == [("stderr", b"x", "")]
    assert cri.end_file() == []
    cri.begin(Point("20261130-030910"))
    e, o = cri.feed(lines(b"stderr F y", b"stdout F b"))
    assert (e.text, o.text, o.time) == (b"y", b"ab", 10**9)
    half = len(first) // 2
    assert (e.open.start.after, e.open.start.offset, e.open.start.back) == ("", half, half)
    assert o.open == Open()


def test_a_line_without_newline_at_the_end_of_a_file():
    """It is given out as unfinished; a part stays open."""
    cri = CriReader(LIMIT)
    assert cri.feed(lines(b"stdout F abc")[:-1]) == []
    assert shown(cri.end_file()) == [("stdout", b"abc", "unfinished")]
    cri = CriReader(LIMIT)
    cri.feed(lines(b"stdout P abc")[:-1])
    assert cri.end_file() == []
    assert shown(cri.end()) == [("stdout", b"abc", "unfinished")]
    assert cri.end() == []


def test_open_lines_at_the_end_of_an_instance():
    """Each comes as it is. Who starts again between the two leaves the first one out."""
    cri = CriReader(LIMIT)
    cri.feed(lines(b"stderr P x", b"stdout P a", b"stderr P y"))
    first, second = cri.end()
    assert shown([first, second]) == [
        ("stderr", b"xy", "unfinished"),
        ("stdout", b"a", "unfinished"),
    ]
    assert first.open.skipping == ("stderr",)
    assert first.open.start.offset == len(lines(b"stderr P x"))
    assert second.open == Open()


def test_the_rest_of_a_cut_line_is_left_out_after_a_restart():
    """The mark of a cut line says which stream is passed over."""
    before = lines(b"stdout P " + b"x" * 30)
    (cut,) = read(before)
    assert cut.open == Open(None, ("stdout",))
    cri = CriReader(LIMIT)
    cri.begin(Point("", cut.end, cut.back, cut.crc))
    cri.restore(cut.open.skipping)
    assert shown(cri.feed(lines(b"stdout F z", b"stdout F n"))) == [("stdout", b"n", "")]


def test_memory_of_a_line_without_end():
    """What is kept of it does not grow."""
    cri = CriReader(LIMIT)
    for _ in range(50):
        assert cri.feed(T + b" stdout F " + b"x" * 1000) == []
        assert len(cri._rest) <= LIMIT + 128
        assert len(cri._tail or b"") <= 1024
    (entry,) = cri.feed(b"\n")
    assert (entry.text, entry.fault, entry.back) == (T[:0] + b"x" * 20, "cut", 1024)


def test_memory_of_parts_without_end():
    """A progress bar that never ends its line is given out once, and passed over from then on."""
    cri = CriReader(LIMIT)
    found = [entry for _ in range(100) for entry in cri.feed(lines(b"stdout P 0123456789"))]
    assert shown(found) == [("stdout", b"01234567890123456789", "cut")]
    assert cri.open == Open(None, ("stdout",))
    assert cri._parts == {}
