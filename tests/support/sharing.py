"""Sources of values for shared calls, and a clock for their age."""

from __future__ import annotations

import asyncio

from kmproxy.errors import UpstreamError


class Clock:
    """A clock that tests set."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Source:
    """A source of values: the next of `answers`, once `gate` is open. Counts the fetches."""

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
    """An upstream failure."""
    return UpstreamError("refused", "the kubelet cannot be reached", status=status)
