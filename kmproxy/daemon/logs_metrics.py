"""The table of own metrics of `kmproxy logs`.

It is apart from the table of `serve`, so that `serve` does not load the code that reads logs. Must
not know names, labels or values.
"""

from __future__ import annotations

from kmproxy.daemon.metrics import SharedMetrics
from kmproxy.logs.api import FollowMetrics
from kmproxy.logs.events import EventMetrics
from kmproxy.logs.sender import SendMetrics
from kmproxy.logs.shipper import PositionMetrics
from kmproxy.logs.source import ReadMetrics


class LogsMetrics(SharedMetrics):
    """All own metrics of `logs`."""

    def __init__(self) -> None:
        super().__init__()
        self.send = SendMetrics(self.registry)
        self.read = ReadMetrics(self.registry, self.send.lost, self.upstream_errors)
        self.events = EventMetrics(
            self.registry, self.send.lost, self.read.cut, self.upstream_errors
        )
        self.follow = FollowMetrics(self.registry)
        self.positions = PositionMetrics(self.registry)
