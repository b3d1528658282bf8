"""Memory for logs of many containers, while the endpoint takes nothing."""

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager

import pytest

from kmproxy.logs.api_text import TextReader
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.cri import CriReader
from kmproxy.logs.files import CONNECTIONS, GROWTH, LEAST_CHUNK, FileSource
from kmproxy.logs.open_lines import ALL, LEAST, OpenLines
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.positions import PositionBook
from kmproxy.logs.sender import SendMetrics
from kmproxy.logs.source import ReadMetrics
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.simulator.logs import SimLogs
from kmproxy.sources.log_answer import LogAnswer
from kmproxy.telemetry import UpstreamErrors, open_registry
from tests.support.loki import until

TIME = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()).encode() + b".123456789Z"
INDEX = b'<pre>\n<a href="0.log">0.log</a>\n</pre>\n'
MAX_LINE = 256 << 10


class Kubelet:
    """Each container's file has the same content. `look` is called at each request.

    `read` has the paths of the files that were read to their end.
    """

    def __init__(self, logs, content):
        self.logs = logs
        self.content = content
        self.look = None
        self.read = set()

    async def pods(self, reader):
        document = {"kind": "PodList", "apiVersion": "v1", "items": self.logs.documents()}
        reader.feed(json.dumps(document).encode())

    async def log(self, path, span):
        self.look()
        if span is None:
            return LogAnswer(200, "", INDEX)
        first, last = span
        size = len(self.content)
        if first >= size:
            return LogAnswer(416, f"bytes */{size}", b"")
        body = self.content[first : last + 1]
        if last + 1 >= size:
            self.read.add(path)
        return LogAnswer(206, f"bytes {first}-{first + len(body) - 1}/{size}", body)


@asynccontextmanager
async def reading(directory, containers, content, buffer):
    """A source that reads, and its batches, which nobody takes lines from."""
    registry = open_registry()
    with SimLogs(directory) as logs:
        for each in range(containers):
            logs.start("shop", f"web-{each}")
        labels = StreamLabels(StreamOptions(), lambda _: b"")
        limits = BatchLimits(buffer=buffer)
        batches = Batches(limits, labels, clock=time.monotonic, count=lambda *_: None)

        async def room():
            while not batches.room:  # noqa: ASYNC110 - nobody frees it
                await asyncio.sleep(0.01)
            return batches.room

        kubelet = Kubelet(logs, content)
        source = FileSource(
            source=kubelet,
            selection=LogSelection(),
            batches=batches,
            book=PositionBook(),
            metrics=ReadMetrics(registry, SendMetrics(registry).lost, UpstreamErrors(registry)),
            room=room,
            max_line=MAX_LINE,
            max_age=3600.0,
            clock=time.monotonic,
            wall=time.time,
            uniform=random.uniform,
        )

        def look():
            kubelet.most = max(kubelet.most, sum(each.reader.has_bytes for each in source.all()))

        kubelet.look, kubelet.most = look, 0
        running = asyncio.create_task(source.run())
        yield kubelet, source
        running.cancel()
        await asyncio.wait({running})


async def test_files_are_not_held_before_their_turn(tmp_path):
    """The first bytes of a file wait for a listing: those of few files at the same time.

    The shortest lines take the most memory. It is reserved before they are fetched.
    """
    content = (TIME + b" stdout F \n") * 10_000
    async with reading(tmp_path, 60, content, 4 << 20) as (kubelet, source):
        await until(lambda: source.batches.room == 0)
        await asyncio.sleep(0.1)
        assert 1 <= kubelet.most <= CONNECTIONS
        limit = source.batches.limits.buffer
        assert source.batches.held <= limit + CONNECTIONS * LEAST_CHUNK * GROWTH


async def test_open_lines_of_many_containers(tmp_path):
    """Parts that no last one follows, and a line without its end: of all files together bounded."""
    parts = b"".join(
        b"%s %s P %s\n" % (TIME, stream, b"x" * 16_000)
        for _ in range(15)
        for stream in (b"stdout", b"stderr")
    )
    content = parts + TIME + b" stdout F " + b"x" * 200_000
    containers = 60
    async with reading(tmp_path, containers, content, 64 << 20) as (kubelet, source):
        await until(lambda: len(kubelet.read) == containers)
        await asyncio.sleep(0.1)
        assert len(content) * containers > 4 * ALL
        assert ALL // 2 < source.opened.held < 3 * ALL
        assert source.batches.held > 0  # lines that were cut


def test_lines_are_cut_to_a_share_of_the_bound():
    """While all open lines are within it, none is cut. Beyond it each reader has its share."""
    opened = OpenLines(1000, limit=10_000)
    part = TIME + b" stdout P " + b"x" * 900 + b"\n"
    first = [CriReader(1000, opened) for _ in range(12)]
    assert [each.feed(part) for each in first] == [[]] * 12
    assert opened.held == 12 * 900
    assert opened.allowed == LEAST
    late = CriReader(100_000, opened)
    (entry,) = late.feed(part + part)
    assert (entry.fault, entry.text) == ("cut", b"x" * 1800)
    assert opened.held == 12 * 900
    assert late.feed(part + TIME + b" stdout F end\n") == []  # the rest of that line
    (entry,) = late.feed(TIME + b" stdout F whole\n")
    assert (entry.fault, entry.text) == ("", b"whole")
    for each in first:
        each.end()
    assert (opened.held, opened.allowed > 10**9) == (0, True)


def test_a_line_of_a_file_is_cut_to_a_share_of_the_bound():
    """Also one without its end, and one of the API server, which knows no parts."""
    opened = OpenLines(1000, limit=10_000)
    opened.change(0, 20_000)
    cri, text = CriReader(100_000, opened), TextReader(100_000, opened)
    begin = TIME + b" stdout F "
    assert cri.feed(begin + b"x" * 50_000) == []
    assert text.feed(TIME + b" " + b"x" * 50_000) == []
    assert opened.held < 20_000 + 2 * 5_500
    (entry,), (line,) = cri.feed(b"y\n" + begin), text.feed(b"y\n")
    assert (entry.fault, line.is_cut) == ("cut", True)
    assert entry.text == b"x" * len(entry.text)
    assert line.text == b"x" * len(line.text)
    cri.end_file()
    text.close()
    assert opened.held == 20_000


@pytest.mark.parametrize("seed", range(5))
def test_what_is_held_is_what_is_counted(seed):
    """However lines are cut into pieces, and whether or not there is room."""
    rng = random.Random(seed)
    opened = OpenLines(200, limit=600)
    readers = [CriReader(200, opened) for _ in range(8)]
    lines = b"".join(
        b"%s %s %s %s\n" % (
            TIME, rng.choice([b"stdout", b"stderr"]), rng.choice([b"P", b"F"]),
            b"x" * rng.randrange(150),
        )
        for _ in range(400)
    )  # fmt: skip
    places = [0] * 8
    for _ in range(1000):
        number = rng.randrange(8)
        size = rng.randrange(300)
        readers[number].feed(lines[places[number] :][:size])
        places[number] += size
        parts = [sum(len(part.text) for part in each._parts.values()) for each in readers]
        assert opened.held == sum(parts) + sum(len(each._rest) for each in readers)
    for each in readers:
        each.end_file()
        each.end()
    assert opened.held == 0
