"""Events as API servers have them, for tests of `kmproxy logs --events`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tests.support.loki import until

GROUP = "events.k8s.io/v1"


def stamp(age=0.0):
    """A time as the API server writes it, `age` seconds ago."""
    return f"{datetime.now(UTC) - timedelta(seconds=age):%Y-%m-%dT%H:%M:%S.%fZ}"


def event(name, note, *, namespace="shop", age=0.0, count=0, **fields):
    """An event of `events.k8s.io/v1` about a pod. With a count it has a series."""
    made = {
        "apiVersion": GROUP,
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "eventTime": stamp(age),
        "reportingController": "kubelet",
        "reportingInstance": "node-a",
        "action": "Pulling",
        "reason": "Pulled",
        "regarding": {
            "kind": "Pod", "name": "web-0", "namespace": namespace, "apiVersion": "v1",
        },
        "type": "Normal",
        "note": note,
    }  # fmt: skip
    if count:
        made["series"] = {"count": count, "lastObservedTime": stamp(age)}
    return made | fields


def notes(loki):
    """The notes of all lines, in the order of their arrival. They hold no quote."""
    return [re.search(r'msg="([^"]*)"', text)[1] for text in loki.texts]


async def has(loki, *wanted):
    """Wait until each of these notes has come."""
    await until(lambda: set(wanted) <= set(notes(loki)))
