"""The law of the reader of pods/log: every line once, at any cut and after any crash.

A model of a container writes, is restarted and rotated at random, between any two steps of the
reader. The reader's answers are cut anywhere, and the reader crashes at random and starts again from
its saved position. A seed gives the same run again.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kmproxy.kube.backoff import Backoff
from kmproxy.logs.api_reader import ApiReader
from kmproxy.logs.lines import Container
from kmproxy.logs.positions import PositionBook
from kmproxy.logs.progress import Tally
from tests.support.pod_log import PodLog

WEB = Container("uid-1", "shop", "web-0", "web", "node-1")
KEY = ("uid-1", "web")


class Run:
    """A reader, the log that it reads, and the endpoint that takes its lines."""

    def __init__(self, seed, *, crash=0.02, rotate=0.0, lag=0.0, hasty=0.0):
        self.rng = random.Random(seed)
        self.log = PodLog(self.rng)
        self.crash, self.rotate, self.lag, self.hasty = crash, rotate, lag, hasty
        self.tally = Tally()
        self.taken = []
        self.saved = None
        self.kept = -1  # the instance of the saved position
        self.has_lines = False  # whether it is the newest, and a line of it was acknowledged
        self.now = 0.0
        self.crashes = 0
        self.start()

    def start(self):
        """Start a reader as a new process does: from the text of the saved position."""
        position = None
        if self.saved is not None:
            book = PositionBook()
            book.restore(self.saved)
            position = book.get(KEY)
        backoff = Backoff(uniform=self.rng.uniform)
        self.reader = ApiReader(WEB, position, self.tally, max_line=1000, oldest=0, backoff=backoff)
        self.pending, self.answer = [], None
        self.look()

    def look(self):
        """Tell the reader of the pod's status."""
        self.reader.observe(self.log.latest, self.now, is_ended=self.log.is_ended)

    def save(self):
        """Write the position, as it is written before the next push."""
        if (position := self.reader.position) is not None:
            book = PositionBook()
            book.set(KEY, position, 0)
            self.saved = book.encode(0)
            self.kept = position.instance
            self.has_lines = self.kept == self.log.latest and position.lines > 0

    def step(self):
        """Let anything happen."""
        rng, log = self.rng, self.log
        self.now += rng.choice([0.0, 0.1, 1.0, 40.0])
        for _ in range(rng.choice([0, 0, 1, 5])):
            log.write()
        if rng.random() < self.rotate:
            self.turn_file()
        if rng.random() < 0.05 and (self.kept == log.latest or rng.random() < self.hasty):
            log.restart()
            self.has_lines = False
        if rng.random() >= self.lag:
            self.look()
        self.ask()
        if rng.random() < 0.5:
            self.take()
        if rng.random() < self.crash:
            self.crashes += 1
            self.start()

    def turn_file(self):
        """Rotate. A follower goes on with the new file, and has read the old one to its end.

        Until a line of the instance was acknowledged, nothing shows that its file was rotated.
        """
        if not self.has_lines:
            return
        if self.answer is not None and self.answer[0] == self.log.latest:
            self.more()
            self.answer[2] = 0
        self.log.rotate()

    def more(self):
        """Let the answer grow by what was written since."""
        instance, since, begin, text = self.answer
        text += self.log.lines(instance, since, begin)
        self.answer = [instance, since, len(self.log.files[instance]), text]

    def ask(self):
        """Read some bytes of an answer, or ask for one."""
        reader, rng = self.reader, self.rng
        if self.answer is None:
            request = reader.request(self.now)
            if request is None:
                return
            self.request = request
            instance = self.log.latest - request.previous
            if instance < 0:
                reader.refuse(self.now)
                return
            self.answer = [instance, request.since, 0, b""]
        self.more()
        text = self.answer[3]
        size = rng.choice([0, 1, 10, 100, 10_000])
        self.pending += reader.feed(text[:size])
        self.answer[3] = rest = text[size:]
        follows = self.request.follow and self.answer[0] == self.log.latest
        if reader.is_doubtful or rng.random() < 0.03:
            reader.fail(self.now)
            self.answer = None
        elif not rest and (not follows or rng.random() < 0.02):
            self.pending += reader.end(self.now)
            self.answer = None

    def take(self, number=None):
        """The endpoint takes some of the lines."""
        number = self.rng.randrange(len(self.pending) + 1) if number is None else number
        if number:
            done, self.pending = self.pending[:number], self.pending[number:]
            self.taken += [(line.instance, line.time, line.text.decode()) for line, _ in done]
            self.reader.acknowledge(done[-1][1])
        if number or self.rng.random() < 0.3:
            self.save()

    def finish(self):
        """Read everything to the end, without further events."""
        self.crash = 0
        self.log.is_ended = True
        for _ in range(200):
            self.now += 50
            self.look()
            for _ in range(5):
                self.ask()
            self.take(len(self.pending))


def run(seed, steps=400, **options):
    """Run a seed to its end."""
    made = Run(seed, **options)
    for _ in range(steps):
        made.step()
    made.finish()
    return made


@pytest.mark.parametrize("seed", range(60))
def test_every_line_once(seed):
    """Whatever is cut and whenever it crashes: each line once, none lost, each by its instance."""
    done = run(seed)
    assert Counter(done.taken) == Counter(done.log.written)
    assert +done.tally.lost == Counter()


@pytest.mark.parametrize("seed", range(60))
def test_no_loss_without_a_count(seed):
    """With rotations, late statuses and hasty restarts: no line twice, and each loss is counted."""
    done = run(seed, rotate=0.02, lag=0.5, hasty=0.3)
    texts = Counter((time, text) for _, time, text in done.taken)
    wanted = Counter((time, text) for _, time, text in done.log.written)
    assert texts - wanted == Counter()
    if wanted - texts:
        assert done.tally.lost.total() > 0


def test_the_runs_are_worth_it():
    """They contain crashes, restarts, rotations and losses."""
    done = [run(seed, rotate=0.02, lag=0.5, hasty=0.3) for seed in range(10)]
    assert sum(each.crashes for each in done) > 30
    assert sum(each.log.latest for each in done) > 30
    assert sum(each.log.rotations for each in done) > 30
    assert {"rotated", "deleted"} <= {reason for each in done for reason in each.tally.lost}
