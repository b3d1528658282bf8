"""Replicas with labels of different age: readiness, with at least one ready replica."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.cli.read import read_config
from kmproxy.errors import ConfigError
from kmproxy.labels import peers
from tests.conftest import Clock, until
from tests.support.programs import free_port

AGED = "--max-label-age=3m"
LONG = 181.0


@pytest.fixture
def quick(monkeypatch):
    """Replicas ask each other many times a second."""
    monkeypatch.setattr(peers, "INTERVAL", 0.02)


@pytest.fixture
async def replicas(front, quick):
    """Two daemons with a clock each that know each other."""
    ports = [free_port(), free_port()]
    found = []
    for mine, other in (ports, ports[::-1]):
        clock = Clock()
        replica = await front(
            AGED, f"--peers=127.0.0.1:{other}", f"--telemetry-listen=127.0.0.1:{mine}", clock=clock
        )
        replica.clock = clock
        found.append(replica)
    return found


async def ready(replica, status):
    """Waits until the readiness has this status; returns its line."""

    async def said():
        code, line = await replica.probe("/readyz")
        return line if code == status else None

    return await until(said)


async def test_old_labels_beside_new_ones(replicas):
    """The old replica is not ready, says why, and still serves. An event makes it ready."""
    old, new = replicas
    old.clock.now += LONG
    line = await ready(old, 503)
    assert "--max-label-age" in line
    assert (await new.probe("/readyz"))[0] == 200
    assert [(await each.probe("/freshz"))[0] for each in replicas] == [503, 200]
    assert (await old.get())[0] == 200
    old.daemon._watcher._confirmed()
    await ready(old, 200)


async def test_nobody_has_new_ones(replicas, monkeypatch):
    """In an outage for all replicas each stays ready, whichever notices it first."""
    old, other = replicas
    old.clock.now += LONG
    await ready(old, 503)
    other.clock.now += LONG
    await ready(old, 200)
    asked = []
    answer = peers.Peers._any_newer

    async def noted(self, session):
        asked.append(self)
        return await answer(self, session)

    monkeypatch.setattr(peers.Peers, "_any_newer", noted)

    async def often():
        assert [(await each.probe("/readyz"))[0] for each in replicas] == [200, 200]
        return len(set(asked)) == 2 and len(asked) > 20

    await until(often)


async def test_nobody_is_asked_while_all_is_well(front, quick, monkeypatch):
    """With fresh labels no other replica is asked."""

    async def never(*_):
        raise AssertionError

    monkeypatch.setattr(peers.Peers, "_any_newer", never)
    proxy = await front(AGED, f"--peers=127.0.0.1:{free_port()}")
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert (await proxy.probe("/readyz"))[0] == 200


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:8081"])
async def test_peers_that_are_not_there(front, quick, clock, monkeypatch, address):
    """A replica without reachable peers serves old labels."""
    rounds = []
    answer = peers.Peers._any_newer

    async def noted(self, session):
        rounds.append(await answer(self, session))
        return rounds[-1]

    monkeypatch.setattr(peers.Peers, "_any_newer", noted)
    proxy = await front(AGED, f"--peers={address}", clock=clock)
    clock.now += LONG

    async def asked():
        return len(rounds) > 1

    await until(asked, 60)
    assert not any(rounds)
    assert (await proxy.probe("/readyz"))[0] == 200


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 302 Go\r\nLocation: /healthz\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""])  # fmt: skip
async def test_what_is_no_answer(front, quick, clock, answer):
    """Only a 200 tells that a peer has newer labels."""
    asked = []

    async def peer(reader, writer):
        asked.append(await reader.read(65536))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = await front(AGED, f"--peers=127.0.0.1:{port}", clock=clock)
    clock.now += LONG

    async def often():
        assert (await proxy.probe("/readyz"))[0] == 200
        return len(asked) > 3

    await until(often)
    assert asked[0].startswith(b"GET /freshz HTTP/1.1\r\n")
    assert b"uthorization" not in asked[0]
    server.close()


async def test_without_the_flag(front, clock):
    """Labels of any age are served, and no peer is asked."""
    proxy = await front(clock=clock)
    clock.now += 100 * LONG
    assert [(await proxy.probe(path))[0] for path in ("/readyz", "/freshz")] == [200, 200]


def test_one_without_the_other():
    """One flag without the other has no effect, and warns. Peers need a host and a port."""
    for flag in (AGED, "--peers=a:1"):
        assert len(read_config([flag])[1]) == 1
    assert read_config([AGED, "--peers=a:1"])[1] == []
    for wrong in ("--peers=:8081", "--peers=a", "--peers=a:0"):
        with pytest.raises(ConfigError, match="--peers"):
            read_config([AGED, wrong])
