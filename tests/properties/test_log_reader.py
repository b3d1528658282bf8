"""The law of the log reader: every line once, whatever happens to the files, and each gap counted.

A model of the kubelet's files is written to, rotated, compressed, restarted, truncated and deleted
at random, between any two steps of the reader. The reader crashes at random and starts again from a
position that was saved. A seed gives the same run again.
"""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.logs.lines import Container
from kmproxy.logs.positions import PositionBook, decode
from kmproxy.logs.progress import Tally
from kmproxy.logs.reader import LogReader
from kmproxy.sources.log_answer import log_answer
from tests.support.log_files import MAX_LINE, LogFiles, Rates

WEB = Container("uid-1", "shop", "web-0", "web", "node-1")
KEY = ("uid-1", "web")

PAGE = b"<html><h1>Log in</h1></html>\n"
ODD = [
    (200, "", PAGE), (404, "", PAGE), (206, "", PAGE), (416, "", PAGE),
    (206, "bytes 0-29/900", PAGE), (206, "bytes 0-28/30", PAGE),
]  # fmt: skip
"""Answers that say nothing about a file: status, Content-Range and body."""


class Run:
    """A reader, the files that it reads, and the endpoint that takes its lines."""

    def __init__(self, seed, rates=None, *, crash=0.01, room=400, opened=None):
        self.opened = opened
        self.rng = random.Random(seed)
        self.files = LogFiles(random.Random(seed + 1), rates or Rates())
        self.crash_rate, self.room = crash, room
        self.fails = 0.02  # how likely a request has no answer
        self.odd = 0.02  # how likely the answer is not one of the file server
        self.tally = Tally()
        self.taken = []  # lines that were acknowledged
        self.repeated = Counter()  # how often a line may have come again, by its key
        self.crashes = 0
        self.saved, self.since_saved = None, []
        self.start()

    def start(self, *, is_deleted=False, is_behind=True):
        """Start a reader as a new process does: from the text of the last saved position.

        If the pod is deleted, it knows of the instances only what the position tells.
        """
        position = None
        if self.saved is not None:
            book = PositionBook()
            book.restore(self.saved)
            position = book.get(KEY)
        self.reader = LogReader(
            WEB, position, self.tally, max_line=MAX_LINE, kept=self.files.rates.keeps,
            opened=self.opened, is_behind=is_behind,
        )  # fmt: skip
        self.pending, self.answer = [], None
        if is_deleted:
            self.shown = position.instance
        self.look(is_deleted=is_deleted)

    def look(self, *, is_deleted=False):
        """Tell the reader of the pod's status, or that it is gone: then nothing new is known."""
        files = self.files
        if not is_deleted:
            self.shown = files.instance
        self.reader.observe(
            self.shown, files.now, is_ended=is_deleted or files.is_ended, is_deleted=is_deleted
        )

    def knows_file(self):
        """Whether bytes of the file that is written to are behind the saved position.

        Without, nobody can know that there were bytes, if the file is truncated.
        """
        if self.saved is None:
            return False
        position = decode(self.saved)[0].position
        point = position.done
        return point.offset > 0 and (position.instance, point.after) == (
            self.files.instance, self.files.newest_rotated,
        )  # fmt: skip

    def save(self):
        """Write the position down."""
        if (position := self.reader.position) is not None:
            book = PositionBook()
            book.set(KEY, position, self.files.now)
            self.saved, self.since_saved = book.encode(self.files.now), []

    def crash(self):
        """Kill the process: what was not acknowledged comes again, and what was not saved may."""
        self.crashes += 1
        if self.rng.random() < 0.5:
            self.save()
        self.repeated.update(map(key, self.since_saved))
        self.since_saved = []
        self.start()

    def take(self, lines):
        """Keep lines until they are acknowledged."""
        assert len(lines) * 30 <= self.room + 2 * 32768
        self.pending += lines

    def acknowledge(self):
        """Let the endpoint take some of the lines, or all."""
        if self.pending:
            count = self.rng.choice([len(self.pending), self.rng.randrange(len(self.pending)) + 1])
            done, self.pending = self.pending[:count], self.pending[count:]
            self.reader.acknowledge(done[-1][1])
            self.taken += [line for line, _ in done]
            self.since_saved += [line for line, _ in done]

    def read(self):
        """Let the reader send a request, or take its answer."""
        reader, files, rng = self.reader, self.files, self.rng
        room = rng.randrange(self.room) + 1
        if self.answer is not None:
            answer, self.answer = self.answer, None
            self.take(reader.respond(answer, files.now, room))
        elif reader.has_backlog:
            self.take(reader.resume(files.now, room))
        elif request := reader.request(files.now, room):
            chance = rng.random()
            if chance < self.fails:
                reader.retry(files.now)
            elif chance < self.fails + self.odd:
                self.mislead(request)
            else:
                self.answer = files.answer(request)

    def mislead(self, request):
        """Answer as something else in the place of the file server does."""
        span = None if request.first is None else (request.first, request.last)
        status, content_range, body = self.rng.choice(ODD)
        with pytest.raises(UpstreamError):
            log_answer("kubelet", status, content_range, body, span)
        self.reader.retry(self.files.now)

    def step(self):
        """Let anything happen."""
        rng = self.rng
        if rng.random() < 0.4:
            self.files.step()
        if rng.random() < 0.2:
            self.look()
        for _ in range(rng.randrange(6)):
            self.read()
        if rng.random() < 0.3:
            self.acknowledge()
        if rng.random() < 0.1:
            self.save()
        if rng.random() < self.crash_rate:
            self.crash()
        if rng.random() < self.files.rates.truncate and self.knows_file():
            self.files.truncate()

    def read_for(self, seconds):
        """Let the reader read for a time in which nothing else happens."""
        end = self.files.now + seconds
        while self.files.now < end:
            self.read()
            if self.answer is None and not self.reader.has_backlog:
                self.acknowledge()
                self.files.now = max(self.files.now, min(self.reader.due, end))

    def drain(self, *, is_deleted=False):
        """End the container, and let the reader read what is left."""
        self.files.end()
        self.look(is_deleted=is_deleted)
        for _ in range(200_000):
            before = self.files.now
            self.read()
            if self.answer is None and not self.reader.has_backlog:
                self.acknowledge()
                if self.reader.finished or (self.reader.due == float("inf") and not self.pending):
                    break
                self.files.now = max(before, min(self.reader.due, before + 60))
        else:
            pytest.fail(f"{self.reader!r} does not come to an end")
        while self.pending:
            self.acknowledge()


def key(line):
    """What a line is known by."""
    return line.instance, line.stream, line.time, line.text


def check_exact(run):
    """Every line once, but for those that a crash let come again."""
    wanted = {key(each) for each in run.files.wanted}
    assert len(wanted) == len(run.files.wanted)
    found = Counter(map(key, run.taken))
    assert set(found) == wanted
    again = {each: count - 1 for each, count in found.items() if count > 1}
    assert all(count <= run.repeated[each] for each, count in again.items()), again
    assert set(run.tally.lost) <= {"not_cri"}
    if not run.crashes:
        assert run.tally.lost["not_cri"] == run.files.garbage
        assert run.tally.cut == run.files.cut
        assert run.tally.unfinished == run.files.unfinished
        assert run.tally.lines == len(wanted)
    for stream in ("stdout", "stderr"):
        if not run.repeated:
            numbers = [number(each) for each in run.taken if each.stream == stream]
            assert numbers == sorted(numbers)


def number(line):
    """The number of a line of the model."""
    return int(re.match(rb"<(\d+)\.", line.text)[1])


@pytest.mark.parametrize("seed", range(40))
def test_every_line_once(seed):
    """Rotated, compressed and restarted, but nothing is deleted: nothing is missing or counted."""
    run = Run(seed, crash=0.0 if seed % 3 == 0 else 0.01)
    for _ in range(1500):
        run.step()
    run.drain(is_deleted=seed % 2 == 0)
    check_exact(run)
    assert len(run.taken) > 200
    assert run.reader.finished is (seed % 2 == 0)


class Crowded:
    """Room for open lines that other readers take and give back at random."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    @property
    def allowed(self):
        """The bytes that a reader may hold now."""
        return self.rng.choice([10**9, 10**9, 300, 60])

    def change(self, before, now):
        """Take what one reader holds."""


@pytest.mark.parametrize("seed", range(8))
def test_every_line_once_without_room_for_open_lines(seed):
    """Lines may be cut at any place, but each comes once, from its beginning on."""
    run = Run(seed, crash=0.05, opened=Crowded(seed))
    for _ in range(700):
        run.step()
    run.drain(is_deleted=seed % 2 == 0)
    wanted = {(each.instance, each.stream, each.time): each.text for each in run.files.wanted}
    found = Counter((each.instance, each.stream, each.time) for each in run.taken)
    again = Counter()
    for each, count in run.repeated.items():
        again[each[:3]] += count
    assert set(found) == set(wanted)
    assert all(count <= 1 + again[each] for each, count in found.items())
    for each in run.taken:
        assert wanted[each.instance, each.stream, each.time].startswith(each.text)
    assert run.tally.cut > run.files.cut
    assert set(run.tally.lost) <= {"not_cri"}


@pytest.mark.parametrize("seed", range(12))
def test_a_reader_that_stands_still_for_long(seed):
    """It finds its place again, however many files were made meanwhile."""
    run = Run(seed)
    for _ in range(12):
        for _ in range(60):
            run.step()
        for _ in range(120):
            run.files.step()
        run.files.wait(30.0)
        run.look()
    run.drain()
    check_exact(run)


ROUGH = Rates(rotate=0.1, restart=0.02, truncate=0.02, keeps=3, keeps_instances=1)


def pieces(line):
    """The numbers in a line of the model: of the line, and of its parts."""
    return re.findall(rb"<(\d+)\.(\d+)>", line.text)


def check_counted(run):
    """What is given out is a line or some of one, and what is missing is counted."""
    wanted = {key(each) for each in run.files.wanted}
    found = Counter(map(key, run.taken))
    for line in run.taken:
        found_pieces = pieces(line)
        assert len({number for number, _ in found_pieces}) <= 1, line
        parts = [int(part) for _, part in found_pieces]
        assert (
            parts == list(range(parts[0], parts[0] + len(parts)))
            if parts
            else key(line) not in wanted
        )
    again = {each for each, count in found.items() if count > 1 + run.repeated[each]}
    assert not again
    gaps = sum(run.tally.lost.values()) - run.tally.lost["not_cri"]
    missing = [
        key(each) not in found for each in sorted(run.files.wanted, key=lambda each: each.number)
    ]
    runs = sum(
        here and not before for before, here in zip([False, *missing], missing, strict=False)
    )
    assert runs <= 3 * gaps, (runs, run.tally)
    if not run.crashes:
        assert gaps <= run.files.damage
    return runs


@pytest.mark.parametrize("seed", range(40))
def test_what_is_lost_is_counted(seed):
    """Files are truncated, and deleted before they were read."""
    run = Run(seed, ROUGH, crash=0.0 if seed % 3 == 0 else 0.01)
    while run.reader.position is None:
        run.files.now += 1.0
        run.read()
    run.save()
    for _ in range(1500):
        if run.rng.random() < 0.005:
            for _ in range(run.rng.randrange(60)):
                run.files.step()
        run.step()
    if seed % 2:
        run.files.end()
        run.files.delete()
    run.drain(is_deleted=seed % 2 == 1)
    assert check_counted(run)


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("outage", ["after the end was seen", "before"])
@pytest.mark.parametrize("seed", range(12))
def test_a_pod_that_goes_while_the_kubelet_fails(seed, outage, is_told):
    """One gap is counted, unless the end of the log was seen after the container's end was told."""
    run = Run(seed, crash=0.0)
    for _ in range(300):
        run.step()
    run.files.restart()
    run.look()
    for _ in range(2):
        run.files.wait(4.0)
        run.files.open_anew()
    run.read_for(60.0)
    for _ in range(run.rng.randrange(5)):
        run.files.write()
    run.files.end()
    if is_told:
        run.look()
    if outage == "before":
        run.fails = 1.0
    run.read_for(0.9)
    run.fails = 1.0
    run.read_for(run.rng.uniform(0.2, 30.0))
    run.files.delete()
    run.fails = 0.02
    run.drain(is_deleted=True)
    is_read = is_told and outage != "before"
    assert run.tally.lost["unseen"] + run.tally.lost["deleted"] == (not is_read)
    if is_read:
        check_exact(run)


@pytest.mark.parametrize("is_left", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_a_pod_that_goes_while_nobody_reads(seed, is_left):
    """What is left of its files comes once, of instances that nobody has seen, too."""
    run = Run(seed, crash=0.0)
    for _ in range(100 + 20 * seed):
        run.step()
    run.save()
    for _ in range(30):
        run.files.step()
        run.read()
        run.acknowledge()
    run.files.restart()
    run.files.write()
    run.files.end()
    if not is_left:
        run.files.delete()
    run.crashes += 1
    run.repeated.update(map(key, run.since_saved))
    run.start(is_deleted=True, is_behind=seed % 2)
    run.drain(is_deleted=True)
    assert run.reader.finished
    if is_left:
        check_exact(run)
    else:
        assert run.tally.lost["deleted" if seed % 2 else "unseen"] == 1
        assert max(Counter(map(key, run.taken)).values()) == 1


def test_a_million_lines():
    """Every line once, compared while it runs, so that the memory stays small."""
    rates = Rates(rotate=0.2, restart=0.01, lines=1200, parts=0.05, garbage=0.001)
    run = Run(2026, rates, crash=0.01, room=1 << 17)
    expected, again, count = set(), Counter(), 0
    while count < 1_000_000:
        for _ in range(20):
            run.step()
        if len(expected) + len(run.files.wanted) > 200_000:  # the reader has fallen behind
            for _ in range(200):
                run.read()
                run.files.wait(0.2)
        count += settle_up(run, expected, again)
    run.drain()
    settle_up(run, expected, again)
    assert expected == set()
    assert set(run.tally.lost) == {"not_cri"}
    assert run.crashes > 20


def settle_up(run, expected, again):
    """Compare the lines that were taken with those written, and forget both. Returns how many."""
    expected.update(map(key, run.files.wanted))
    again.update(run.repeated)
    taken, run.files.wanted, run.taken = run.taken, [], []
    run.repeated.clear()
    for each in map(key, taken):
        if each in expected:
            expected.remove(each)
        else:
            again[each] -= 1
            assert again[each] >= 0, each
    return len(taken)
