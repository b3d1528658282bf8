"""The reader of pods/log: its requests and its text, case by case."""

import pytest

from kmproxy.errors import PositionsError
from kmproxy.kube.backoff import Backoff
from kmproxy.logs.api_pods import places
from kmproxy.logs.api_reader import ApiReader, ApiRequest
from kmproxy.logs.api_text import TextReader
from kmproxy.logs.lines import Container
from kmproxy.logs.positions import ApiPosition, PositionBook, decode
from kmproxy.logs.progress import Tally

WEB = Container("uid-1", "shop", "web-0", "web", "node-1")
T = "2023-11-14T22:13:2%d.%09dZ "


def at(second, nanosecond=0, text="x"):
    """One line of an answer."""
    return (T % (second, nanosecond) + text + "\n").encode()


def reader(position=None, *, max_line=100, oldest=0):
    """A reader that draws the longest delays."""
    backoff = Backoff(uniform=lambda _, high: high)
    return ApiReader(WEB, position, Tally(), max_line=max_line, oldest=oldest, backoff=backoff)


def texts(read):
    """The texts of lines."""
    return [line.text for line, _ in read]


def test_the_text_at_any_cut():
    """Every cut gives the same lines; long ones are cut; a rest has no time."""
    data = b"rest\n" + at(0, 5, "one") + at(1, 0, "y" * 300) + at(1, 0, "")
    whole = TextReader(100).feed(data)
    for cut in range(len(data)):
        made = TextReader(100)
        assert made.feed(data[:cut]) + made.feed(data[cut:]) == whole
    assert [each.time for each in whole] == [
        None,
        1_700_000_000_000_000_005,
        *[1_700_000_001 * 10**9] * 2,
    ]
    assert [each.is_cut for each in whole] == [False, False, True, False]
    assert [len(each.text) for each in whole] == [4, 3, 100, 0]


def test_a_time_of_another_zone():
    """Runtimes write the node's local time."""
    (line,) = TextReader(10).feed(b"2023-11-15T00:13:20.5+02:00 x\n")
    assert line.time == 1_700_000_000_500_000_000


@pytest.mark.parametrize(
    "time", [b"9999-12-31T23:59:59-14:00", b"0001-01-01T00:00:00Z", b"2023-13-01T00:00:00Z"]
)
def test_a_time_that_no_request_can_name(time):
    """A container can write what looks like a time at the beginning of a part of a line."""
    (line,) = TextReader(100).feed(time + b" x\n")
    assert line.time is None


def test_the_first_requests():
    """The instance before is read first, then the newest one is followed."""
    made = reader(oldest=1_700_000_000 * 10**9)
    assert made.request(0) is None
    made.observe(2, 0, is_ended=False)
    assert not made.follows
    assert made.request(0) == ApiRequest(previous=True, follow=False, since=1_700_000_000)
    made.feed(at(1))
    made.end(0)
    assert made.follows
    assert made.request(0) == ApiRequest(previous=False, follow=True, since=None)


def test_an_instance_before_that_is_not_there():
    """On the first look nothing is lost by it; later it is."""
    made = reader()
    made.observe(1, 0, is_ended=False)
    made.request(0)
    made.refuse(0)
    assert made.request(0) == ApiRequest(previous=False, follow=True, since=None)
    made.end(0)
    made.observe(2, 0, is_ended=False)
    assert made.request(1).previous
    made.refuse(1)
    assert made._tally.lost == {"deleted": 1}


def test_the_delay_of_a_crash_loop():
    """It grows with each failure, and an answer does not shorten it."""
    made = reader()
    made.observe(0, 0, is_ended=False)
    now, delays = 0.0, []
    for _ in range(6):
        made.request(now)
        made.feed(b"")
        made.end(now)
        delays.append(made.due - now)
        now = made.due
    assert delays == pytest.approx([0.8, 1.6, 3.2, 6.4, 12.8, 25.6])


def test_another_log_than_expected():
    """It is asked for once more; then the gap is counted, and only newer lines are given out."""
    made = reader(ApiPosition(0, 1_700_000_000, 2, 77, 1_700_000_001 * 10**9))
    made.observe(0, 0, is_ended=False)
    for _ in range(2):
        made.request(made.due)
        assert made._tally.lost == {}
        first = made.feed(at(1) + at(3, text="new"))
        if made.is_doubtful:
            made.fail(made.due)
    assert texts(first) == [b"new"]
    assert made._tally.lost == {"rotated": 1}


def test_messages_of_the_kubelet():
    """They are counted, and never given out."""
    made = reader()
    made.observe(0, 0, is_ended=False)
    made.request(0)
    assert texts(made.feed(b"failed to create fsnotify watcher: too many open files\n")) == []
    assert made._tally.lost == {"not_cri": 1}


def test_a_pod_that_goes():
    """Its last answer is read to the end; what nobody read is counted."""
    made = reader()
    made.observe(0, 0, is_ended=False)
    made.request(0)
    made.observe(0, 0, is_ended=True, is_deleted=True)
    assert texts(made.feed(at(0, text="last"))) == [b"last"]
    assert not made.finished
    made.end(0)
    assert made.finished
    assert made._tally.lost == {}
    other = reader()
    other.observe(0, 0, is_ended=False)
    other.observe(0, 0, is_ended=True, is_deleted=True)
    assert other.finished
    assert other._tally.lost == {"deleted": 1}


def test_positions_of_both_sources():
    """The file holds them side by side, and refuses impossible ones."""
    book = PositionBook()
    book.set(("u", "c"), ApiPosition(1, 5, 2, 7, 6_000_000_000, ended=True), 0)
    (entry,) = decode(book.encode(0))
    assert entry.position == ApiPosition(1, 5, 2, 7, 6_000_000_000, ended=True)
    book.set(("u", "c"), ApiPosition(-1), 0)
    with pytest.raises(PositionsError):
        decode(book.encode(0))


@pytest.mark.parametrize(
    ("namespaces", "wanted"),
    [
        ((), ("/api/v1/pods",)),
        (("a", "b-*"), ("/api/v1/pods",)),
        (("a", "b", "a"), ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/b/pods")),
    ],
)
def test_the_lists(namespaces, wanted):
    """Namespaces without a pattern are listed by themselves."""
    assert places(namespaces) == wanted


def test_a_position_names_no_second_that_was_not_asked_for():
    """Otherwise lines from before --max-age would come, which it does not count."""
    made = reader(oldest=1_700_000_001 * 10**9)
    made.observe(0, 0, is_ended=False)
    made.request(0)
    ((_, mark),) = made.feed(at(1))
    assert mark.position.since == 1_700_000_001


@pytest.mark.parametrize(
    ("lines", "text"), [(1, at(1, text="another")), (5, at(2))], ids=["checksum", "too few"]
)
def test_a_log_is_doubted_at_once(lines, text):
    """By the checksum of as many lines, or by a newer line before them; then it waits for news."""
    made = reader(ApiPosition(0, 1_700_000_000, lines, 77, 1_700_000_001 * 10**9))
    made.observe(0, 0, is_ended=False)
    made.request(0)
    assert made.feed(text) == []
    assert made.is_doubtful
    made.fail(10)
    assert made.due == 12


def test_a_last_line_without_its_end():
    """It is given out when the instance has ended, not before, and counted."""
    made = reader()
    made.observe(0, 0, is_ended=False)
    made.request(0)
    assert made.feed(at(0, text="half")[:-1]) == []
    made.observe(0, 0, is_ended=True)
    assert made.end(0) == []
    assert made.request(made.due) == ApiRequest(previous=False, follow=False, since=None)
    made.feed(at(0, text="half")[:-1])
    assert texts(made.end(0)) == [b"half"]
    assert made._tally.unfinished == 1
