"""A model of one container's log files: the kubelet's file server, and a runtime that writes.

It imports nothing that it is to check but requests and responses. Times are seconds of its clock.
"""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from kmproxy.logs.exchange import Request, Response

EPOCH = 1_700_000_000
MAX_LINE = 240
FOLDER = "/logs/pods/shop_web-0_uid-1/web/"


def written(time):
    """A time in nanoseconds as runtimes write it."""
    return b"%s.%09dZ" % (_second(time // 10**9), time % 10**9)


@lru_cache(64)
def _second(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


@dataclass
class Rates:
    """How likely each thing is, at each step. `keeps` is the number of rotated files."""

    rotate: float = 0.06
    restart: float = 0.01
    truncate: float = 0.0
    garbage: float = 0.02
    parts: float = 0.25
    long: float = 0.03
    lines: int = 4
    keeps: int = 10**6
    keeps_instances: int = 10**6


@dataclass
class Wanted:
    """A line that the container wrote: its time and its text, as it is to be given out."""

    number: int
    instance: int
    stream: str
    time: int
    text: bytes


@dataclass
class LogFiles:
    """The files of a container, and the runtime that writes them."""

    rng: random.Random
    rates: Rates = field(default_factory=Rates)
    now: float = 1000.0
    instance: int = 0
    is_ended: bool = False

    def __post_init__(self):
        self.files = {"0.log": bytearray()}
        self.handle = self.files["0.log"]
        self.old_handle, self.old_until = None, 0.0  # of streams that were not `switched` yet
        self.switched = set()
        self.reopen = None
        self.open = {}  # stream -> [time, text so far, number]
        self.torn = b""  # of a raw line: what is not written yet
        self.torn_to = None
        self.number = 0
        self.wanted = []
        self.garbage = self.cut = self.unfinished = self.damage = 0
        self.ticks = 0

    # what the container and the runtime do

    def stamp(self):
        self.ticks += 1
        return (EPOCH + int(self.now)) * 10**9 + self.ticks * 1000 + self.rng.randrange(1000)

    def put(self, raw, stream=None):
        """Write a raw line, some of it perhaps later, to one file."""
        self.complete()
        target = self.handle
        if self.old_handle is not None and stream not in self.switched:
            target = self.old_handle
            if self.rng.random() < 0.3:
                self.switched.add(stream)
        if self.rng.random() < 0.2:
            cut = self.rng.randrange(len(raw))
            target += raw[:cut]
            self.torn, self.torn_to = raw[cut:], target
        else:
            target += raw

    def complete(self):
        """Write the rest of a raw line to the file that has its beginning."""
        if self.torn_to is not None:
            self.torn_to += self.torn
            self.torn, self.torn_to = b"", None

    def write(self):
        """Write a line or a part of one."""
        rng, rates = self.rng, self.rates
        if self.is_ended:
            return
        if rng.random() < rates.garbage:
            self.garbage += 1
            self.put(
                rng.choice(
                    [b"\n", b"hello\n", b"2023-11-14T22:13:20Z stdout X no\n", b"\x00\xff\n"]
                )
            )
            return
        stream = rng.choice(["stdout", "stderr"])
        time = self.stamp()
        opened = self.open.get(stream)
        if opened is None:
            opened = self.open[stream] = [time, b"", self.number]
            self.number += 1
        size = MAX_LINE if rng.random() < rates.long else rng.randrange(40)
        text = b"<%d.%d>" % (opened[2], opened[1].count(b"<")) + b"x" * size
        opened[1] += text
        is_last = rng.random() >= rates.parts
        if is_last:
            self.settle(stream)
        tag = (b"F", b"P")[not is_last] + rng.choice([b"", b"", b":a"])
        self.put(b"%s %s %s %s\n" % (written(time), stream.encode(), tag, text), stream)

    def settle(self, stream):
        """A line is whole, or will never be."""
        time, text, number = self.open.pop(stream)
        self.cut += len(text) > MAX_LINE
        self.wanted.append(Wanted(number, self.instance, stream, time, text[:MAX_LINE]))

    def rotate(self):
        """Rename the file, as the kubelet does, and let the runtime open a new one later."""
        if self.is_ended or self.reopen is not None or self.old_handle is not None:
            return
        self.now += 1.0  # names have seconds
        name = f"{self.instance}.log"
        older = sorted(each for each in self.files if each.startswith(f"{name}."))
        for each in older[: max(len(older) - self.rates.keeps + 1, 0)]:
            del self.files[each]
            self.damage += 1
        for each in older:
            if each in self.files and not each.endswith(".gz"):
                self.files[f"{each}.gz"] = gzip.compress(bytes(self.files.pop(each)), 1)
        self.files[f"{name}.20231114-{int(self.now):06d}"] = self.files.pop(name)
        self.reopen = self.now + self.rng.choice([0.0, 0.1, 3.0])

    def open_anew(self):
        """The runtime opens the new file. Its streams do so one after the other."""
        if self.reopen is None or self.now < self.reopen or self.is_ended:
            return
        self.reopen = None
        late = self.rng.choice([0.0, 0.5])
        self.old_handle, self.old_until = self.handle, self.now + late
        self.switched = set()
        self.handle = self.files[f"{self.instance}.log"] = bytearray()

    def end(self):
        """End the instance. An open line is never finished."""
        if self.is_ended:
            return
        self.complete()
        for stream in list(self.open):
            self.unfinished += len(self.open[stream][1]) <= MAX_LINE
            self.settle(stream)
        self.is_ended, self.reopen, self.old_handle = True, None, None

    def restart(self):
        """The next instance begins. Files of those long dead are deleted."""
        if not self.is_ended:
            return
        self.instance += 1
        self.is_ended = False
        self.now += 1.0
        self.handle = self.files[f"{self.instance}.log"] = bytearray()
        for name in list(self.files):
            if int(name.split(".")[0]) < self.instance - self.rates.keeps_instances:
                del self.files[name]
                self.damage += 1

    def truncate(self):
        """Somebody empties the file that is written to."""
        if not self.is_ended and self.reopen is None:
            del self.handle[:]
            self.damage += 1

    @property
    def newest_rotated(self):
        """The time in the name of the last rotated file of the instance, or an empty text."""
        names = [each.split(".") for each in self.files if each.startswith(f"{self.instance}.log.")]
        return max((name[2] for name in names), default="")

    def delete(self):
        """The pod's folder goes."""
        self.damage += len(self.files)
        self.files.clear()

    def wait(self, seconds):
        """Let time pass. The runtime stops writing to a file that it has renamed soon after."""
        if self.old_handle is not None and self.now + seconds >= self.old_until:
            if self.torn_to is self.old_handle:
                self.complete()
            self.old_handle = None
        self.now += seconds

    def step(self):
        """Do something at random."""
        rng, rates = self.rng, self.rates
        passed = rng.choice([0.0, 0.0, 0.05, 0.3, 2.0])
        if self.torn_to is not None and rng.random() < 0.5:
            self.complete()
        self.wait(passed)
        self.open_anew()
        for _ in range(rng.randrange(rates.lines + 1)):
            self.write()
        if rng.random() < rates.rotate:
            self.rotate()
        if rng.random() < rates.restart:
            self.end()
        elif self.is_ended and rng.random() < 0.1:
            self.restart()

    # what the kubelet serves

    def answer(self, request: Request) -> Response:
        """Answer as Go's file server does."""
        assert request.path.startswith(FOLDER)
        name = request.path.removeprefix(FOLDER)
        if request.first is None:
            assert name == ""
            if not self.files:
                return Response.of(404, "", b"404 page not found\n")
            links = "".join(f'<a href="{each}">{each}</a>\n' for each in sorted(self.files))
            return Response.of(200, "", f"<pre>\n{links}</pre>\n".encode())
        assert re.fullmatch(r"\d+\.log(\.\d{8}-\d{6}(\.gz)?)?", name)
        assert 0 <= request.first <= request.last
        data = self.files.get(name)
        if data is None:
            return Response.of(404, "", b"404 page not found\n")
        size = len(data)
        if not size:
            return Response.of(200, "", b"")
        if request.first >= size:
            return Response.of(416, f"bytes */{size}", b"invalid range\n")
        body = bytes(data[request.first : request.last + 1])
        return Response.of(
            206, f"bytes {request.first}-{request.first + len(body) - 1}/{size}", body
        )
