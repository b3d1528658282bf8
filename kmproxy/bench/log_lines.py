"""Measures log lines on their way to a push: batches, labels, JSON and gzip, without a network.

Knows lines like those of a web server. Must not know endpoints.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

from kmproxy.content_coding import GzipEncoder
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.loki import body
from kmproxy.logs.streams import StreamLabels, StreamOptions

CONTAINERS: Final = 50
LINES: Final = 40_000
_START: Final = 1_800_000_000 * 10**9


@dataclass(frozen=True, slots=True)
class LogFigures:
    """One round on one core: the lines, the bytes of their texts, and the seconds.

    `pushed_bytes` are the bytes of all pushes together, after gzip.
    """

    lines: int
    bytes: int
    pushed_bytes: int
    pushes: int
    seconds: float


def measure(seconds: float) -> LogFigures:
    """Make pushes of the same lines for about `seconds`, in rounds. The fastest round counts."""
    lines = _lines()
    best: LogFigures | None = None
    end = time.perf_counter() + seconds
    while best is None or time.perf_counter() < end:
        figures = _round(lines)
        if best is None or figures.seconds < best.seconds:
            best = figures
    return best


def _round(lines: list[Line]) -> LogFigures:
    labels = StreamLabels(StreamOptions(), lambda _: b',team="frontend",tier="web"')
    batches = Batches(BatchLimits(), labels, clock=time.monotonic, count=lambda *_: None)
    pushes = pushed = 0

    def acknowledge(_: Mark) -> None:
        pass

    def push() -> None:
        nonlocal pushes, pushed
        for batch in batches.ready():
            encoder = GzipEncoder()
            coded = encoder.feed(body(batch.entries)) + encoder.finish()
            pushed += len(coded)
            pushes += 1
            batches.settle(batch, batch.entries)
            batches.done(batch)

    begin = time.perf_counter()
    for number, line in enumerate(lines):
        batches.add(line, Mark(number), acknowledge)
        if not number % 1000:
            push()
    batches.flushing = True
    while len(batches):
        push()
    seconds = time.perf_counter() - begin
    return LogFigures(len(lines), sum(len(line.text) for line in lines), pushed, pushes, seconds)


def _lines() -> list[Line]:
    """Lines in the order of reads: a few of one container, then of the next one."""
    rng = random.Random(16)  # noqa: S311 - a payload, the same every time
    containers = [
        Container(f"uid-{number}", f"team-{number % 5}", f"web-{number}", "app", "node-1")
        for number in range(CONTAINERS)
    ]
    paths = [f"/api/v1/items/{rng.randrange(10**6)}" for _ in range(500)]
    found = []
    for number in range(LINES):
        text = (
            f'10.0.{rng.randrange(256)}.{rng.randrange(256)} - - "GET {rng.choice(paths)} HTTP/1.1"'
            f' {rng.choice((200, 200, 200, 304, 404))} {rng.randrange(10**5)} "-" '
            f'"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101" {rng.random():.3f}'
        )
        of = containers[number // 100 % CONTAINERS]
        found.append(Line(of, 0, "stdout", _START + number * 1000, text.encode()))
    return found
