"""The source of log files while the kubelet fails."""

import asyncio
import json
import time

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.files import FOLDER, FileSource
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.positions import PositionBook
from kmproxy.logs.sender import SendMetrics
from kmproxy.logs.source import ReadMetrics
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.simulator.logs import SimLogs
from kmproxy.sources.kubelet import LogAnswer
from kmproxy.telemetry import UpstreamErrors, open_registry
from tests.support.loki import until


class Kubelet:
    """Lists pods. The request for a log with number N fails if `fails` of N is true."""

    def __init__(self, logs, fails):
        self.logs = logs
        self.fails = fails
        self.asked = 0

    async def pods(self, reader):
        document = {"kind": "PodList", "apiVersion": "v1", "items": self.logs.documents()}
        reader.feed(json.dumps(document).encode())

    async def log(self, path, _):
        if path == FOLDER:
            return LogAnswer(200, "", b"")
        self.asked += 1
        if self.fails(self.asked):
            raise UpstreamError("refused", "the kubelet is away")
        return LogAnswer(404, "", b"")


@pytest.mark.parametrize(
    ("fails", "bounds"),
    [
        (lambda number: number % 2, [0.8] * 6),
        (lambda _: True, [0.8, 1.6, 3.2, 6.4, 8.0, 8.0]),
    ],
    ids=["now and then", "always"],
)
async def test_the_pauses_after_failures(tmp_path, fails, bounds):
    """They grow from failure to failure. A good answer ends the pause: the next one is short."""
    drawn = []

    def uniform(_, high):
        drawn.append(high)
        return 0.0

    registry = open_registry()
    lost = SendMetrics(registry).lost
    with SimLogs(tmp_path) as logs:
        for number in range(12):
            logs.start("shop", f"web-{number}")
        kubelet = Kubelet(logs, fails)
        labels = StreamLabels(StreamOptions(), lambda _: b"")
        source = FileSource(
            source=kubelet,
            selection=LogSelection(),
            batches=Batches(BatchLimits(), labels, clock=time.monotonic, count=lambda *_: None),
            book=PositionBook(),
            metrics=ReadMetrics(registry, lost, UpstreamErrors(registry)),
            room=lambda: asyncio.sleep(0, 1000),
            max_line=1000,
            max_age=3600.0,
            clock=time.monotonic,
            wall=time.time,
            uniform=uniform,
        )
        running = asyncio.create_task(source.run())
        await until(lambda: len(drawn) >= len(bounds))
        running.cancel()
        await asyncio.wait({running})
    assert drawn[: len(bounds)] == bounds
