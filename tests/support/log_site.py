"""A log reader in front of the model of a container's files, with a clock of its own."""

from __future__ import annotations

import random

from kmproxy.logs.lines import Container
from kmproxy.logs.progress import Tally
from kmproxy.logs.reader import LogReader
from tests.support.log_files import FOLDER, LogFiles

WEB = Container("uid-1", "shop", "web-0", "web", "node-1")


def line(number, text=b"x", tag=b"F"):
    """A line of the second `number`."""
    return b"1970-01-01T00:00:%02dZ stdout %s %s\n" % (number, tag, text)


class Site:
    """A reader, and the files that it reads."""

    def __init__(self, files, position=None, **more):
        self.model = LogFiles(random.Random(0))
        self.files = self.model.files
        self.files.clear()
        self.files.update(files)
        self.tally = Tally()
        self.now = 0.0
        self.asked = []
        self.reader = LogReader(WEB, position, self.tally, max_line=1000, **more)
        self.reader.observe(0, self.now, is_ended=False)

    def ask(self, room=10_000):
        """Let one request be answered. Returns its file and the lines, or None if none is due."""
        request = self.reader.request(self.now, room)
        if request is None:
            return None
        self.asked.append(request)
        lines = self.reader.respond(self.model.answer(request), self.now, room)
        while self.reader.has_backlog:
            lines += self.reader.resume(self.now, room)
        return lines

    def read(self, seconds=30.0, room=10_000):
        """Let the reader read for a time. Returns the texts of the lines."""
        end, lines = self.now + seconds, []
        while self.now <= end and not self.reader.finished:
            found = self.ask(room)
            if found is None:
                self.now = max(self.now + 0.01, min(self.reader.due, end + 1))
            else:
                lines += found
        self.lines = lines
        return [each.text for each, _ in lines]

    @property
    def names(self):
        """The files that were asked for."""
        return [each.path.removeprefix(FOLDER) for each in self.asked]
