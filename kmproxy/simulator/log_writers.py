"""Made-up applications that write log lines into the files of a simulated node, and their events.

Knows what a few kinds of applications say, and what Kubernetes says of their pods. Must not know
files, or anything of the proxy under test. The same random numbers give the same lines.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

from kmproxy.simulator.logs import SimLogs
from kmproxy.simulator.objects import Object

_APPLICATIONS = (
    ("frontend-service1", "shop", ("GET /cart 200 {n}ms", "GET /products/{n} 200")),
    ("frontend-service2", "search", ("query {n}: 12 results", "{n} documents are indexed")),
    ("payments", "ledger", ("payment {n} is booked", "payment {n} waits for its bank")),
    ("kube-system", "dns", ("reload of the zones took {n}ms",)),
)  # fmt: skip


_EVENTS = (
    ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ("BackOff", "Back-off restarting failed container app"),
)

EVENT_EVERY = 10
"""Of so many lines the third is an event of the pod, in place of a line of its application."""


class LogWriters:
    """One pod of each application. Each call of `write` adds a line of one of them.

    `tell` takes Kubernetes events. Each pod has one of each kind, whose count grows.
    """

    def __init__(
        self, logs: SimLogs, chance: Random, tell: Callable[[Object], object] | None = None
    ) -> None:
        self._chance = chance
        self._tell = tell
        self._number = 0
        self._counts: dict[str, int] = {}
        self._writers = [
            (logs.start(namespace, f"{name}-7d4b9c-{number}x2k"), says)
            for number, (namespace, name, says) in enumerate(_APPLICATIONS)
        ]

    def __repr__(self) -> str:
        return f"<LogWriters {len(self._writers)} containers>"

    def write(self) -> None:
        """Let a container write a line to standard output or error, or tell an event of its pod."""
        pod, says = self._chance.choice(self._writers)
        self._number += 1
        if self._tell and self._number % EVENT_EVERY == 3:
            self._tell(self._event(pod.namespace, pod.name, *self._chance.choice(_EVENTS)))
            return
        text = self._chance.choice(says).format(n=self._chance.randrange(10, 1000))
        stream = self._chance.choice(("stdout", "stdout", "stdout", "stderr"))
        pod.containers["app"].write(text, stream)

    def _event(self, namespace: str, pod: str, reason: str, note: str) -> Object:
        name = f"{pod}.{reason.lower()}"
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": now,
            "series": {"count": count, "lastObservedTime": now},
            "reportingController": "kubelet",
            "reportingInstance": "node-1",
            "reason": reason,
            "regarding": {"kind": "Pod", "name": pod, "namespace": namespace, "apiVersion": "v1"},
            "type": "Warning",
            "note": note,
        }
