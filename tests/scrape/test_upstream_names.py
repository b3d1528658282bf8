"""Names of upstreams that nobody resolves take nothing from other scrapes."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tests.conftest import until
from tests.support.exporters import Exporter, answer, config_file

NAMES = 40
"""More than the threads in which Python resolves names, on any machine."""


@pytest.fixture
def silent(monkeypatch):
    """A resolver that does not answer for some names, until the test ends."""
    real, ended, asked = socket.getaddrinfo, threading.Event(), []

    def look_up(host, *rest, **options):
        if str(host).startswith("silent-"):
            asked.append(host)
            ended.wait(30)
            raise socket.gaierror
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    ended.set()


async def test_names_that_do_not_resolve(front, tmp_path, silent):
    """An upstream and a kubelet of names that resolve are scraped meanwhile."""
    async with Exporter(answer(b'm{namespace="payments"} 1\n')) as exporter:
        entries = [
            {"name": f"silent-{number}", "url": f"http://silent-{number}/metrics"}
            for number in range(NAMES)
        ]
        entries.append({"name": "ksm", "url": exporter.url.replace("127.0.0.1", "localhost")})
        proxy = await front(config_file(tmp_path, *entries), "--node-name-or-ip=localhost")
        scrapes = [
            asyncio.create_task(proxy.get(f"/upstreams/silent-{number}/metrics"))
            for number in range(NAMES)
        ]

        async def all_are_asked():
            return len(silent) == NAMES

        await until(all_are_asked)
        async with asyncio.timeout(30):
            assert (await proxy.get("/upstreams/ksm/metrics"))[0] == 200
            assert (await proxy.get())[0] == 200
        assert not any(scrape.done() for scrape in scrapes)
        for scrape in scrapes:
            scrape.cancel()
        await asyncio.gather(*scrapes, return_exceptions=True)
