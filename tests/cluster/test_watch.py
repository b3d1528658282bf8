"""Namespaces of a real API server: list, watch, and recovery after each interruption."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import until

pytestmark = [pytest.mark.cluster]

SECONDS = 60.0
"""Within this a change must show, whatever interrupted the watch: twice the longest back-off."""


def shows(front, namespace, team):
    """A condition: the namespace's samples have this team, or none."""
    added = "" if team is None else f',team="{team}"'
    pair = f'namespace="{namespace}"{added},pod='

    async def check():
        status, text = await front.get()
        return status == 200 and pair in text

    return check


async def test_a_change_of_a_label(real_front, plane):
    """The next scrape shows a changed and a removed label."""
    front = await real_front()
    await until(shows(front, "payments", "payments"))
    plane.namespace("payments", team="billing")
    await until(shows(front, "payments", "billing"))
    plane.namespace("payments")
    await until(shows(front, "payments", None))
    plane.namespace("payments", team="payments")
    await until(shows(front, "payments", "payments"))


async def test_a_namespace_deleted_and_created_again(real_front, plane):
    """It keeps its labels while deleted, and then has the new ones."""
    front = await real_front()
    await until(shows(front, "payments", "payments"))
    plane.delete_namespace("payments")

    async def deleted():
        return (
            await front.metric("kmproxy_namespaces")
            < len(plane.request("GET", "/api/v1/namespaces")["items"]) + 1
        )

    await until(deleted)
    assert await shows(front, "payments", "payments")()
    plane.namespace("payments", team="second")
    await until(shows(front, "payments", "second"))
    plane.namespace("payments", team="payments")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_api_server_is_restarted(real_front, plane, how):
    """Labels are served meanwhile. Changes after the return show."""
    front = await real_front()
    await until(shows(front, "payments", "payments"))
    await asyncio.to_thread(plane.stop_api, how)
    await asyncio.sleep(0)
    await asyncio.to_thread(plane.start_api)
    plane.namespace("payments", team=f"after-{int(how)}")
    await until(shows(front, "payments", f"after-{int(how)}"), SECONDS)
    plane.namespace("payments", team="payments")
    await until(shows(front, "payments", "payments"))


async def test_the_history_is_compacted(real_front, plane):
    """A history that was lost during an outage gives 410, which leads to a list."""
    front = await real_front()
    await until(shows(front, "payments", "payments"))
    await asyncio.to_thread(plane.stop_api)
    await asyncio.to_thread(plane.compact)
    await asyncio.to_thread(plane.start_api)
    plane.namespace("payments", team="compacted")
    await until(shows(front, "payments", "compacted"), SECONDS)
    plane.namespace("payments", team="payments")
    await until(shows(front, "payments", "payments"))


async def restarted(front, plane, team, away):
    """Restarts the API server without its history; returns the seconds until a new label shows."""
    await asyncio.to_thread(plane.stop_api, signal.SIGKILL)  # SIGTERM takes 30 s more
    await asyncio.to_thread(plane.compact)
    await asyncio.sleep(away)
    await asyncio.to_thread(plane.start_api)
    began = time.monotonic()
    plane.namespace("payments", team=team)
    await until(shows(front, "payments", team), SECONDS)
    return time.monotonic() - began


async def test_how_long_a_change_takes_after_a_return(real_front, plane):
    """Printed with `pytest -s`. For the README: `KMPROXY_RESTARTS=10`, `--timeout=0`."""
    count, took = int(os.environ.get("KMPROXY_RESTARTS", "1")), []
    for each in range(count):
        front = await real_front()  # another one: nothing has failed in its last two minutes
        plane.namespace("payments", team="payments")
        await until(shows(front, "payments", "payments"))
        took.append(await restarted(front, plane, f"return-{each}", away=25.0))
        await front.daemon.stop()
    figures = f"max {max(took):.1f} s, mean {statistics.mean(took):.1f} s"
    each = ", ".join(f"{seconds:.1f}" for seconds in took)
    sys.stdout.write(f"\n{count} restarts: a change shows after {figures} ({each})\n")
    plane.namespace("payments", team="payments")


async def test_five_thousand_namespaces(real_front, plane):
    """All namespaces are listed in pages, and a changed label shows."""

    def create(number):
        plane.namespace(f"many-{number}", team=f"team-{number % 50}")

    def all_of_them():
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, range(5000)))

    await asyncio.to_thread(all_of_them)
    front = await real_front()

    async def listed():
        return await front.metric("kmproxy_namespaces") >= 5000

    await until(listed)
    plane.namespace("payments", team="one-of-many")
    await until(shows(front, "payments", "one-of-many"))
    plane.namespace("payments", team="payments")
