"""Limits on the number of connections: a new one never ends a scrape. And addresses."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kmproxy.config.types import Address
from kmproxy.errors import StartupError
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.clients import KEPT, answers, connected
from tests.support.listener import GET, ask, config, served

# Limits of number.


async def test_too_many_connections(front):
    """A new one is served; the one that has rested longest makes room."""
    proxy = await front("--max-connections=3")
    waiting = await connected(proxy, 3)
    assert await answers(waiting[0])  # so the second has rested longest
    assert await served(proxy, None)
    assert await ended(waiting[1])
    assert await answers(waiting[0])
    assert await answers(waiting[2])
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 1
    for _, writer in waiting:
        writer.close()


async def ended(connection):
    """Whether the other side has ended a connection."""
    try:
        async with asyncio.timeout(30):
            return await connection[0].read(1) == b""
    except ConnectionResetError:
        return True


async def test_scrapes_under_way_are_not_cut_for_new_connections(front, cluster):
    """With nothing that rests, it is the new one that goes."""
    proxy = await front("--max-connections=2")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    busy = await connected(proxy, 2)
    for _, writer in busy:
        writer.write(KEPT)

    async def at_work():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 2

    await until(at_work)
    assert await ask(proxy) == b""
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 1
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 2
    for _, writer in busy:
        writer.close()


async def test_handshakes_that_stand_still_make_room(front, ours, tmp_path):
    """Connections that say no hello do not keep out who does."""
    proxy = await front(config(tmp_path), "--max-connections=3")
    waiting = await connected(proxy, 3)
    assert await served(proxy, ours.client())
    assert await ended(waiting[0])
    for _, writer in waiting:
        writer.close()


async def test_the_telemetry_port_has_room_of_its_own(front):
    """The kubelet's probes are answered whatever there is on the other port."""
    proxy = await front("--max-connections=2")
    waiting = await connected(proxy, 20)
    assert await proxy.probe("/healthz") == (200, "ok\n")
    for _, writer in waiting:
        writer.close()


async def test_nothing_is_left_of_ended_connections(front):
    """Neither in the count nor among those that rest."""
    proxy = await front("--max-connections=4")
    for _ in range(20):
        assert await served(proxy, None)
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 0


async def test_nothing_is_left_of_clients_that_leave(front, cluster):
    """Nor of those that went while they were answered: their places are free."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    proxy = await front("--max-connections=2")
    for number in range(1, 5):
        ((_, writer),) = await connected(proxy, 1)
        writer.write(KEPT)

        async def at_work():
            return await proxy.metric("kmproxy_scrapes_in_flight") == 1

        await until(at_work)
        writer.transport.abort()

        async def gone(times=number):
            return await proxy.metric("kmproxy_scrapes_total", code="gone") == times

        await until(gone)
    cluster.kubelets["node-a"].recover()
    both = await connected(proxy, 2)
    assert [await answers(each) for each in both] == [True, True]
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 0
    for _, writer in both:
        writer.close()


def need_ipv6():
    """Skip where the loopback interface has no IPv6, as in many containers."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize("host", ["", "127.0.0.1", "localhost", "::1"])
async def test_addresses(front, host):
    """Every interface, one address, or a name: the port can be reached."""
    if host in {"", "::1"}:
        need_ipv6()
    address = Address(host, 0)
    proxy = await front(f"--listen={address}")
    for where in [host] if host else ["127.0.0.1", "::1"]:
        reader, writer = await asyncio.open_connection(where, proxy.daemon.metrics_port)
        writer.write(GET % b"/")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_a_name_that_is_not_known(front):
    """It is said at once."""
    with pytest.raises(StartupError, match=r"cannot listen on no-such\.invalid:1 \(--listen\)"):
        await front("--listen=no-such.invalid:1")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_every_interface_or_none(front, family):
    """A port that is taken for one kind of address is taken."""
    if family == socket.AF_INET6:
        need_ipv6()
    with socket.create_server(("", 0), family=family) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match="the address is in use"):
            await front(f"--listen=:{port}")
