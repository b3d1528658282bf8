"""The steps of a preflight: how a step is announced, bounded in time, and how its failure is kept.

Knows the objects that every step uses. Must not know any of the checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kmproxy.check.report import Report, indented
from kmproxy.config.logs import LogsCommand
from kmproxy.config.sections import Config
from kmproxy.daemon.clients import Clients
from kmproxy.errors import ApiError, KmproxyError

STEP_TIMEOUT = 10.0
"""Seconds that a step may take. A setting of its own limits the loading of the namespaces."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The objects of every step: the daemon's configuration and clients, and the report.

    `announce` gets a line at the beginning of each step, `output` the text of its results. A step
    may take `timeout` seconds. `logs` is set for the daemon of `kmproxy logs`.
    """

    config: Config
    clients: Clients
    report: Report
    announce: Callable[[str], None]
    output: Callable[[str], None] | None = None
    timeout: float = STEP_TIMEOUT
    logs: LogsCommand | None = None

    def show(self, lines: Iterable[str]) -> None:
        """Output the results of a step, if anybody reads them."""
        if self.output is not None:
            self.output(indented(lines))

    @asynccontextmanager
    async def step(
        self, check: str, subject: str, heading: str, seconds: float | None = None
    ) -> AsyncIterator[None]:
        """Announce a step. If it fails, add a row for the failure, so the next step can begin."""
        self.announce(heading)
        seconds = self.timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            message = f"no answer within {seconds:g} s"
        except KmproxyError as error:
            message = error.summary if isinstance(error, ApiError) else str(error)
        else:
            return
        self.report.add(check, subject, "failed", message)
        self.show([f"failed: {message}"])
