"""The log reader: what it asks for, when, and what it makes of odd answers.

That every line comes once whatever happens is shown in tests/properties/test_log_reader.py.
"""

import gzip
import random

import pytest

from kmproxy.logs.exchange import Request, Response
from kmproxy.logs.lines import Mark
from kmproxy.logs.positions import FilePosition, Point
from kmproxy.logs.reader import PACKED
from tests.support.log_files import FOLDER
from tests.support.log_site import WEB, Site, line

A, B = "20261130-030910", "20261130-030920"


def test_what_is_asked_for_first():
    """The index, for the oldest instance; the file; and the index again before it is believed."""
    site = Site({"0.log": line(1, b"one")})
    assert [site.ask(64) for _ in range(2)] == [[], []]
    ((found, mark),) = site.ask(64)
    assert site.asked == [
        Request(FOLDER), Request(f"{FOLDER}0.log", 0, 63), Request(FOLDER),
    ]  # fmt: skip
    assert (found.container, found.instance, found.stream) == (WEB, 0, "stdout")
    assert (found.time, found.text, mark.number) == (10**9, b"one", 1)
    assert site.ask() is None
    site.now = site.reader.due
    assert site.now == 1.0
    assert site.ask() == []
    size = len(line(1, b"one"))
    assert site.asked[-1] == Request(f"{FOLDER}0.log", 0, size + 9_999)  # the last line, and on
    assert site.reader.due == site.now + 1.5


def test_the_position_moves_by_acknowledgement_only():
    """A mark that is older changes nothing, nor does one of another reader."""
    site = Site({"0.log": line(1) + line(2)})
    site.read(1.0)
    (_, first), (_, second) = site.lines
    assert site.reader.position is None
    site.reader.acknowledge(Mark(9))
    assert site.reader.position is None
    site.reader.acknowledge(first)
    assert site.reader.position.done.offset == len(line(1))
    site.reader.acknowledge(second)
    site.reader.acknowledge(first)
    assert site.reader.position.done.offset == 2 * len(line(1))


def test_bytes_without_lines_move_the_position():
    """What is no line needs no acknowledgement, once all lines before are acknowledged."""
    site = Site({"0.log": line(1) + b"garbage\n"})
    site.read(1.0)
    assert site.tally.lost == {"not_cri": 1}
    assert site.reader.position is None
    site.reader.acknowledge(site.lines[0][1])
    assert site.reader.position.done.offset == len(line(1) + b"garbage\n")


def test_only_paths_made_of_names_are_asked_for():
    """A link of an index is never followed, whatever it says."""
    site = Site({"0.log": line(1), "../../secret": b"", "0.log.tmp": b"", "etc": b""})
    assert site.read() == [b"x"]
    assert set(site.names) == {"", "0.log"}


def test_a_planted_link_to_another_file():
    """A pod with a hostPath may plant one: nothing of it is given out, each line is counted."""
    site = Site({"0.log": b"root:x:0:0:root:/root:/bin/bash\n" * 500 + bytes(3000)})
    assert site.read(room=700) == []
    assert site.tally.lost == {"not_cri": 500}
    assert not site.reader.is_docker


def test_dockers_lines():
    """They are told by name, and are not given out."""
    site = Site({"0.log": b'{"log":"a\\n","stream":"stdout","time":"2026-11-30T03:09:10Z"}\n'})
    assert site.read() == []
    assert site.reader.is_docker


def test_what_is_older_at_the_first_sight():
    """It is counted and left out; with a position every line comes."""
    files = {"0.log": line(1, b"old") + line(5, b"new")}
    site = Site(files, oldest=5 * 10**9)
    assert site.read() == [b"new"]
    assert site.tally.lost == {"too_old": 1}
    site = Site(files, FilePosition(0, Point()), oldest=5 * 10**9)
    assert site.read() == [b"old", b"new"]


def test_rotated_files_come_first_packed_or_not():
    """In the order of their times, and the one that is written to last."""
    site = Site({
        "0.log": line(3), f"0.log.{B}": line(2), f"0.log.{A}.gz": gzip.compress(line(1)),
    })  # fmt: skip
    assert site.read() == [b"x"] * 3
    assert [each.time for each, _ in site.lines] == [10**9, 2 * 10**9, 3 * 10**9]
    assert site.tally.lost == {}


def test_a_rotated_file_before_an_empty_one():
    """It is read at once, and not only when the container writes again."""
    site = Site({"0.log": b"", f"0.log.{A}": line(1)})
    assert site.read(5.0) == [b"x"]
    site = Site({"0.log": b""})
    assert site.read(5.0) == []
    site.files[f"0.log.{A}"] = line(1)
    assert site.read() == [b"x"]
    assert site.tally.lost == {}


def test_a_listing_that_fails_while_bytes_are_held():
    """The first bytes of a file are asked for again, instead of being held until it succeeds."""
    site = Site({"0.log": line(1)})
    assert [site.ask(), site.ask(), site.reader.has_bytes] == [[], [], True]
    assert site.reader.request(site.now, 100) == Request(FOLDER)
    site.reader.retry(site.now)
    assert not site.reader.has_bytes
    assert site.read() == [b"x"]
    assert site.names[:3] == ["", "0.log", "0.log"]


def test_packed_bytes_are_asked_for_in_small_pieces():
    """They stay in memory until they are unpacked."""
    packed = gzip.compress(random.Random(0).randbytes(100_000))
    site = Site({"0.log": line(1), f"0.log.{A}.gz": packed})
    site.read(room=10**9)
    spans = [
        each.last - each.first
        for each in site.asked
        if each.path.endswith(".gz") and each.first is not None
    ]
    assert len(spans) > 3
    assert max(spans) < PACKED


def test_a_damaged_packed_file():
    """What could be unpacked is given out, and one gap is counted."""
    packed = gzip.compress(
        b"".join(
            line(number % 60, random.Random(number).randbytes(30).hex().encode())
            for number in range(200)
        )
    )
    for odd in (packed[:-400], b"not gzip", b""):
        site = Site({"0.log": line(3, b"last"), f"0.log.{A}.gz": odd})
        found = site.read()
        assert found[-1] == b"last"
        assert len(found) > 100 or odd[:3] != packed[:3]
        assert site.tally.lost == {"damaged": 1}


def test_a_listing_that_misses_a_file():
    """An index is not made in one moment: a file that is being packed may stand in it not at all."""
    site = Site({"0.log": line(1) + line(2)})
    site.read(1.0)
    old = site.files["0.log"]
    site.files["0.log"] = line(4) * 5
    site.ask()
    site.now = site.reader.due
    assert site.reader.request(site.now, 100).path == f"{FOLDER}0.log"
    site.reader.respond(Response.of(206, "bytes 29-58/145", line(4)), site.now, 100)
    assert site.reader.request(site.now, 100).path == FOLDER
    site.reader.respond(Response(200, b'<a href="0.log">'), site.now, 100)
    site.files[f"0.log.{A}.gz"] = gzip.compress(old + line(3))
    assert len(site.read()) == 6
    assert site.tally.lost == {}


def test_a_file_that_stands_in_the_index_only():
    """A link that leads nowhere is passed over after some looks, and counted. Nothing spins."""
    site = Site({"0.log": line(3, b"three"), f"0.log.{A}": line(1, b"one")})
    listed = site.model.files
    index = "".join(f'<a href="{name}">x</a>' for name in [*listed, f"0.log.{B}"])

    def answer(request):
        return Response(200, index.encode()) if request.first is None else real(request)

    real, site.model.answer = site.model.answer, answer
    assert site.read() == [b"one", b"three"]
    assert site.tally.lost == {"rotated": 1}
    assert len(site.asked) < 60


def test_nonsense_does_not_make_it_spin():
    """However odd the answers are, there is time between the requests."""
    site = Site({f"0.log.{A}": b"", "0.log": b""})
    index = f'<a href="0.log"><a href="0.log.{A}">'.encode()
    for odd in (
        Response.of(206, "bytes 5-9/400", b"x"),
        Response.of(404, "", b"x"),
        Response.of(206, "", b""),
    ):
        site.model.answer = lambda request, odd=odd: (
            Response(200, index) if request.first is None else odd
        )
        site.asked.clear()
        site.read(20.0)
        assert len(site.asked) < 300


def test_a_truncated_file():
    """It is read from its beginning, and one gap is counted."""
    site = Site({"0.log": line(1) + line(2)})
    site.read(1.0)
    site.files["0.log"] = line(3, b"three")
    assert site.read() == [b"three"]
    assert site.tally.lost == {"truncated": 1}


def test_a_reader_that_comes_too_late():
    """The file of the position is gone: one gap, and on with what is left."""
    gone = FilePosition(0, Point(A, 500, 29, 7))
    site = Site({"0.log": line(9, b"nine"), f"0.log.{B}": line(8, b"eight")}, gone)
    assert site.read() == [b"eight", b"nine"]
    assert site.tally.lost == {"rotated": 1}


def test_an_instance_that_is_gone():
    """The position is in one that the kubelet has deleted: one gap."""
    site = Site({"4.log": line(9, b"nine")}, FilePosition(2, Point("", 500, 29, 7)))
    site.reader.observe(4, site.now, is_ended=False)
    assert site.read() == [b"nine"]
    assert site.tally.lost == {"deleted": 1}


def test_an_instance_between_that_is_gone():
    """The one before was read to its end, so the gap is the instance that nobody saw."""
    for latest, lost in ((1, {}), (2, {"deleted": 1})):
        site = Site({"0.log": line(1)})
        site.read(5.0)
        site.reader.observe(latest, site.now, is_ended=False)
        site.read(0.3)
        site.files.clear()
        site.files[f"{latest}.log"] = line(9, b"nine")
        assert site.read() == [b"nine"]
        assert site.tally.lost == lost


def test_a_container_that_ends():
    """Four times a second; its end is believed a second after its exit; then nothing is asked."""
    site = Site({"0.log": line(1) + line(2, b"open", b"P")})
    site.read(5.0)
    site.now = 10.0
    site.reader.observe(0, site.now, is_ended=True)
    assert site.reader.due <= 10.0
    assert site.ask() == []
    assert site.reader.due == 10.25
    assert site.read(0.99) == []
    assert site.read(2.0) == [b"open"]
    assert site.tally.unfinished == 1
    count = len(site.asked)
    assert site.read(100.0) == []
    assert len(site.asked) == count
    site.files["1.log"] = line(3, b"next")
    site.reader.observe(1, site.now, is_ended=False)
    assert site.read() == [b"next"]
    site.reader.observe(1, site.now, is_ended=True, is_deleted=True)
    assert site.read() == []
    assert site.reader.finished
    assert site.reader.request(1e9, 100) is None


def test_a_request_without_an_answer():
    """The same one is asked again, later."""
    site = Site({"0.log": line(1)})
    site.ask()
    request = site.reader.request(site.now, 100)
    site.reader.retry(site.now)
    assert site.reader.request(site.now, 100) is None
    site.now = site.reader.due
    assert site.now == 1.5
    assert site.reader.request(site.now, 100) == request


def test_nothing_is_asked_for_without_room():
    """Reading waits while what was read cannot be held."""
    site = Site({"0.log": line(1)})
    assert site.reader.request(0.0, 0) is None


@pytest.mark.parametrize("odd", [
    Response(200, b"x" * 400, 0, 400), Response(206, b"", 0, 400), Response(206, line(1)[:5], 0, 5),
    Response.of(206, "bytes 7-70/400", b"x" * 64), Response.of(206, "nonsense", b"x"), Response.of(416, "bytes */3", b""),
])  # fmt: skip
def test_an_answer_that_is_not_of_the_file(odd):
    """Nothing is taken from bytes that do not have the evidence before them."""
    site = Site({"0.log": line(1)})
    site.read(1.0)
    site.now = site.reader.due
    assert site.reader.request(site.now, 100)
    assert site.reader.respond(odd, site.now, 100) == []
    site.files["0.log"] += line(2, b"two")
    assert site.read() == [b"two"]
    assert site.tally.lost == {}


def test_a_server_that_knows_no_range():
    """The whole file is compared and passed over as far as it was read."""
    site = Site({"0.log": line(1)})
    site.read(1.0)
    site.now = site.reader.due
    assert site.reader.request(site.now, 100)
    ((found, _),) = site.reader.respond(
        Response.of(200, "", line(1) + line(2, b"two")), site.now, 100
    )
    assert found.text == b"two"


def test_a_status_line():
    """Where a reader stands."""
    site = Site({"0.log": line(3), f"0.log.{A}": line(1)})
    assert repr(site.reader) == "<LogReader -1.log after - at 0>"
    site.read()
    assert repr(site.reader) == f"<LogReader 0.log after {A} at {len(line(3))}>"
    assert (site.reader.lag, site.reader.newest) == (0, 3 * 10**9)
