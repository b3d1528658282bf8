"""Made-up applications that write log lines into the files of a simulated node.

Knows what a few kinds of applications say. Must not know files, or anything of the proxy under
test. The same random numbers give the same lines.
"""

from __future__ import annotations

from random import Random

from kmproxy.simulator.logs import SimLogs

_APPLICATIONS = (
    ("frontend-service1", "shop", ("GET /cart 200 {n}ms", "GET /products/{n} 200")),
    ("frontend-service2", "search", ("query {n}: 12 results", "{n} documents are indexed")),
    ("payments", "ledger", ("payment {n} is booked", "payment {n} waits for its bank")),
    ("kube-system", "dns", ("reload of the zones took {n}ms",)),
)  # fmt: skip


class LogWriters:
    """One pod of each application. Each call of `write` adds a line of one of them."""

    def __init__(self, logs: SimLogs, chance: Random) -> None:
        self._chance = chance
        self._writers = [
            (logs.start(namespace, f"{name}-7d4b9c-{number}x2k").containers["app"], says)
            for number, (namespace, name, says) in enumerate(_APPLICATIONS)
        ]

    def __repr__(self) -> str:
        return f"<LogWriters {len(self._writers)} containers>"

    def write(self) -> None:
        """Let a container write a line, to standard output or error."""
        container, says = self._chance.choice(self._writers)
        text = self._chance.choice(says).format(n=self._chance.randrange(10, 1000))
        container.write(text, self._chance.choice(("stdout", "stdout", "stdout", "stderr")))
