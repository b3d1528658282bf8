"""The source of log files while the kubelet fails."""

import asyncio
import json
import time

from kmproxy.errors import UpstreamError
from kmproxy.logs import files
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.files import FOLDER, FileSource
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.positions import PositionBook
from kmproxy.logs.sender import SendMetrics
from kmproxy.logs.source import ReadMetrics
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.simulator.logs import SimLogs
from kmproxy.sources.log_answer import LogAnswer
from kmproxy.telemetry import UpstreamErrors, open_registry
from tests.support.loki import until


class Kubelet:
    """The request for a log with number N fails if `fails` of N is true; of a list, likewise."""

    def __init__(self, logs, fails=lambda _: False, fails_to_list=lambda _: False):
        self.logs = logs
        self.fails = fails
        self.fails_to_list = fails_to_list
        self.asked = self.listed = 0

    async def pods(self, reader):
        self.listed += 1
        if self.fails_to_list(self.listed):
            raise UpstreamError("refused", "the kubelet is away")
        document = {"kind": "PodList", "apiVersion": "v1", "items": self.logs.documents()}
        reader.feed(json.dumps(document).encode())

    async def log(self, path, _):
        if path == FOLDER:
            return LogAnswer(200, "", b"")
        self.asked += 1
        if self.fails(self.asked):
            raise UpstreamError("refused", "the kubelet is away")
        return LogAnswer(404, "", b"")


async def drawn(directory, number, **fails):
    """The bounds of the first delays after failures, of which each is drawn as 0."""
    bounds = []

    def uniform(_, high):
        bounds.append(high)
        return 0.0

    registry = open_registry()
    lost = SendMetrics(registry).lost
    with SimLogs(directory) as logs:
        for each in range(12):
            logs.start("shop", f"web-{each}")
        labels = StreamLabels(StreamOptions(), lambda _: b"")
        source = FileSource(
            source=Kubelet(logs, **fails),
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
        await until(lambda: len(bounds) >= number)
        running.cancel()
        await asyncio.wait({running})
    return bounds[:number]


async def test_the_pauses_after_failures(tmp_path):
    """They grow from failure to failure. A good answer ends the pause: the next one is short."""
    now_and_then = await drawn(tmp_path / "a", 6, fails=lambda number: number % 2)
    assert now_and_then == [0.8] * 6
    always = await drawn(tmp_path / "b", 6, fails=lambda _: True)
    assert always == [0.8, 1.6, 3.2, 6.4, 8.0, 8.0]


async def test_lists_after_failures(tmp_path, monkeypatch):
    """Likewise for lists of pods: a good list is followed by the next one at its usual time."""
    monkeypatch.setattr(files, "PODS_INTERVAL", 0.01)
    found = await drawn(tmp_path / "a", 4, fails_to_list=lambda number: number % 2)
    assert found == [0.8] * 4
    found = await drawn(tmp_path / "b", 4, fails_to_list=lambda _: True)
    assert found == [0.8, 1.6, 3.2, 6.4]
