"""A model of one container's log behind the API server's pods/log."""

from __future__ import annotations

from datetime import UTC, datetime


class PodLog:
    """Instances of a container, each with the lines of its current file.

    A line is a time in nanoseconds and the texts of its parts, which have times of their own.
    """

    def __init__(self, rng):
        self.rng = rng
        self.now = 1_700_000_000 * 10**9
        self.newest = 0
        self.files = [[]]
        self.is_ended = False
        self.written = []
        self.rotations = 0

    @property
    def latest(self):
        """The number of the newest instance."""
        return len(self.files) - 1

    def write(self):
        """Write one line: equal to another one now and then, and up to a second in the past."""
        rng = self.rng
        self.now += rng.choice([0, 0, 1, 10**6, 10**8, 6 * 10**8, 3 * 10**9])
        time = max(self.now - rng.choice([0, 0, 0, 10**3, 9 * 10**8]), 0)
        if self.files[-1] and rng.random() < 0.2:
            time = self.files[-1][-1][0][0]
        started = self.started if self.latest else 0
        time = max(time, self.newest - 10**9, started)
        self.newest = max(self.newest, time)
        self.now = max(self.now, time)
        text = f"line {rng.randrange(3) if rng.random() < 0.3 else len(self.written)}"
        parts = [(time, text)]
        while rng.random() < 0.1:
            self.now += rng.choice([0, 10**9])
            parts.append((max(time, self.now), "+"))
        self.files[-1].append(parts)
        self.written.append((self.latest, time, "".join(part for _, part in parts)))

    def restart(self):
        """End the instance and begin the next one."""
        self.now = self.started = max(self.now, self.newest) + 1
        self.files.append([])
        self.is_ended = False

    def rotate(self):
        """Begin a new file: the lines so far can no longer be read."""
        self.files[-1] = []
        self.rotations += 1

    def lines(self, instance, since, begin=0):
        """The text of an instance from its line number `begin` on, as a kubelet makes it."""
        text = ""
        for parts in self.files[instance][begin:]:
            for number, (time, part) in enumerate(parts):
                if time // 10**9 >= (since or 0):
                    text += (f"{stamp(time)} " if not number else "") + part
                    text += "\n" if number == len(parts) - 1 else ""
        return text.encode()


def stamp(nanoseconds):
    """A time as the kubelet writes it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
