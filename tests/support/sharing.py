"""What is fetched by shared calls, and the time of its age."""

from __future__ import annotations

import asyncio

from kmproxy.errors import UpstreamError


class Clock:
    """A time that is set."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Source:
    """What is fetched: the next of `answers`, once `gate` is open. Counts how often."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        self.begun.set()
        answer = self.answers.pop(0)
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def failure(status=502):
    """What an upstream's failure is."""
    return UpstreamError("refused", "the kubelet cannot be reached", status=status)
