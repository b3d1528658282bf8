"""Connections on real sockets: TLS and its rotation, limits of number and of time."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from kmproxy.config.types import Address
from kmproxy.errors import StartupError
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.clients import KEPT, answers, connected
from tests.support.process import refused
from tests.support.resets import ends_in_a_reset
from tests.support.tls import Authority, write_config

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PAIR = {"cert_file": "tls.crt", "key_file": "tls.key"}
MUTUAL = PAIR | {"client_ca_file": "ca.crt", "client_auth_type": "RequireAndVerifyClientCert"}


@pytest.fixture
def ours(tmp_path):
    """Our authority, with a pair in the directory, and a CA file of it for clients."""
    authority = Authority()
    authority.write_pair(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    return authority


def config(directory, tls=PAIR, **sections):
    """Write the web config; returns the flag that names it."""
    path = write_config(directory / "web.yaml", {"tls_server_config": tls, **sections})
    return f"--web-config-file={path}"


async def ask(proxy, context=None, request=GET % b"/metrics/probes"):
    """The answer to a request on a connection of its own; b"" if there is none."""
    port = proxy.daemon.metrics_port
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        return b""
    try:
        writer.write(request)
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def served(proxy, context):
    """Whether a client is served samples with labels."""
    answer = await ask(proxy, context)
    return answer.startswith(b"HTTP/1.1 200 OK") and b'team="payments"' in answer


async def test_tls(front, ours, tmp_path):
    """Who trusts the authority is served; plain HTTP and another's client are not."""
    proxy = await front(config(tmp_path))
    assert await served(proxy, ours.client())
    assert await ask(proxy, None) == b""
    assert await ask(proxy, Authority().client()) == b""
    assert await proxy.metric("kmproxy_refused_total", reason="tls") == 2
    expiry = "kmproxy_certificate_expiry_timestamp_seconds"
    assert await proxy.metric(expiry, certificate="serving") > 1e9


async def test_the_flags_of_kubelet_meta_proxy(front, ours, tmp_path):
    """-metrics-cert-path is TLS on the enriched metrics."""
    proxy = await front(f"-metrics-cert-path={tmp_path}", "-metrics-secure")
    assert await served(proxy, ours.client())
    assert await ask(proxy, None) == b""


async def test_the_probes_stay_plain(front, ours, tmp_path):
    """A kubelet's probes need no certificate."""
    proxy = await front(config(tmp_path, MUTUAL))
    assert await proxy.probe("/healthz") == (200, "ok\n")
    assert await proxy.probe("/readyz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("tls", "version", "works"),
    [
        ({"min_version": "TLS13"}, ssl.TLSVersion.TLSv1_2, False),
        ({"min_version": "TLS13"}, ssl.TLSVersion.TLSv1_3, True),
        ({"max_version": "TLS12"}, ssl.TLSVersion.TLSv1_3, False),
        ({}, ssl.TLSVersion.TLSv1_2, True),
    ],
)
async def test_versions(front, ours, tmp_path, tls, version, works):
    """Only those that are configured are spoken."""
    proxy = await front(config(tmp_path, PAIR | tls))
    client = ours.client()
    client.minimum_version = client.maximum_version = version
    assert await served(proxy, client) is works


async def test_ciphers(front, ours, tmp_path):
    """Only those that are configured are agreed on."""
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]
    proxy = await front(config(tmp_path, PAIR | {"cipher_suites": suites}))
    client = ours.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES256-GCM-SHA384+ECDHE:ECDHE+AESGCM+AES256")
    assert await served(proxy, client)
    client.set_ciphers("ECDHE+AESGCM+AES128")
    assert not await served(proxy, client)


async def test_client_certificates(front, ours, tmp_path):
    """One of the CA is let in; none, and one of another CA, are not."""
    proxy = await front(config(tmp_path, MUTUAL))
    assert await served(proxy, ours.client(ours))
    assert not await served(proxy, ours.client())
    assert not await served(proxy, ours.client(Authority()))


async def test_a_client_certificate_if_given(front, ours, tmp_path):
    """None will do; one of another CA will not."""
    proxy = await front(config(tmp_path, MUTUAL | {"client_auth_type": "VerifyClientCertIfGiven"}))
    assert await served(proxy, ours.client())
    assert await served(proxy, ours.client(ours))
    assert not await served(proxy, ours.client(Authority()))


@pytest.mark.parametrize(
    ("allowed", "names", "works"),
    [
        (["a.example"], ["a.example"], True),
        (["a.example"], ["b.example", "a.example"], True),
        (["a.example"], ["b.example"], False),
        (["a.example"], ["x.a.example"], False),
        (["*.example"], ["a.example"], False),
        (["10.0.0.9"], ["10.0.0.9"], True),
        (["2001:db8::1"], ["2001:db8::1"], True),
        (["me@a.example"], ["me@a.example"], True),
        ([], ["a.example"], False),
    ],
)
async def test_client_names(front, ours, tmp_path, allowed, names, works):
    """The certificate must bear one of the allowed names, exactly."""
    proxy = await front(config(tmp_path, MUTUAL | {"client_allowed_sans": allowed}))
    assert await served(proxy, ours.client(ours, *names)) is works
    refused = await proxy.metric("kmproxy_refused_total", reason="certificate")
    assert refused == (0 if works else 1)


async def test_a_new_certificate_is_served(front, ours, tmp_path):
    """Without a restart, to who connects then."""
    proxy = await front(config(tmp_path))
    new = Authority()
    new.write_pair(tmp_path)

    async def rotated():
        return await served(proxy, new.client()) and not await served(proxy, ours.client())

    await until(rotated)


async def test_a_mismatched_pair_does_not_break_what_runs(front, ours, tmp_path, caplog):
    """Certificate and key are swapped one after the other: the old pair serves until both fit."""
    proxy = await front(config(tmp_path))
    new = Authority()
    new.write_pair(tmp_path, key=False)

    async def told():
        assert await served(proxy, ours.client())
        return await proxy.metric("kmproxy_credential_errors_total", credential="web_config") > 0

    await until(told)
    assert "it is not the key of" in caplog.text
    assert await served(proxy, ours.client())
    new.write_pair(tmp_path)
    await until(lambda: served(proxy, new.client()))


async def test_an_old_client_ca_is_refused_after_its_rotation(front, ours, tmp_path):
    """By a new handshake, by a resumed session, and on a connection that was kept."""
    proxy = await front(config(tmp_path, MUTUAL))
    old, new = ours.client(ours), Authority()
    old.maximum_version = ssl.TLSVersion.TLSv1_2  # its sessions can be resumed before a read
    session = await asyncio.to_thread(resumable, proxy.daemon.metrics_port, old)
    kept = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port, ssl=old)
    assert await answers(kept)
    (tmp_path / "ca.crt").write_bytes(new.pem)
    await until(lambda: served(proxy, ours.client(new)))
    assert not await served(proxy, old)
    assert not await answers(kept)
    with pytest.raises(OSError):
        await asyncio.to_thread(resumable, proxy.daemon.metrics_port, old, session)
    kept[1].close()


def resumable(port, context, session=None):
    """Connect, be served, and return the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls,
    ):
        tls.sendall(KEPT)
        if not tls.recv(1):
            raise ConnectionResetError
        if session is not None and not tls.session_reused:
            raise ConnectionRefusedError
        return tls.session


async def test_a_session_is_resumed_while_nothing_changes(front, ours, tmp_path):
    """So that the refusal above is for the rotation, not for the resumption."""
    proxy = await front(config(tmp_path, MUTUAL))
    client = ours.client(ours)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    session = await asyncio.to_thread(resumable, proxy.daemon.metrics_port, client)
    await asyncio.to_thread(resumable, proxy.daemon.metrics_port, client, session)


async def test_a_kept_connection_stays_while_clients_may(front, ours, tmp_path):
    """A new serving certificate is no reason to end it."""
    proxy = await front(config(tmp_path, MUTUAL))
    kept = await asyncio.open_connection(
        "127.0.0.1", proxy.daemon.metrics_port, ssl=ours.client(ours)
    )
    assert await answers(kept)
    new = Authority()
    new.write_pair(tmp_path)
    client = new.client(ours)
    await until(lambda: served(proxy, client))
    assert await answers(kept)
    kept[1].close()


async def test_a_plain_connection_ends_when_tls_begins(front, ours, tmp_path):
    """What was let in without TLS is not when there is TLS."""
    path = write_config(tmp_path / "web.yaml", {})
    proxy = await front(f"--web-config-file={path}")
    kept = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)
    assert await answers(kept)
    config(tmp_path)
    await until(lambda: served(proxy, ours.client()))
    assert not await answers(kept)
    kept[1].close()


@pytest.mark.parametrize("fault", [Fault.CUT_CHUNKED, Fault.CUT_GZIP])
async def test_a_body_that_is_cut_over_tls(front, cluster, ours, tmp_path, fault):
    """No close of TLS says that it was whole: the end is an error."""
    proxy = await front(config(tmp_path))
    cluster.kubelets["node-a"].fail(fault)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.daemon.metrics_port, ssl=ours.client()
    )
    writer.write(b"GET /metrics/cadvisor HTTP/1.0\r\n\r\n")
    with pytest.raises(OSError):
        await reader.read()
    writer.close()


# Limits of time.


async def silence(proxy, *parts, context=None, every=0.05):
    """Send parts slowly and then nothing: what comes back until the end."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.daemon.metrics_port, ssl=context
    )
    try:
        for part in parts:
            if writer.transport.is_closing():
                break
            writer.write(part)
            await asyncio.sleep(every)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


SLOW = {
    "nothing": [],
    "no end of the request line": [b"GET /metrics"],
    "no end of the headers": [b"GET / HTTP/1.1\r\nHost: x\r\n"],
    "a byte at a time": [
        bytes([byte]) for byte in b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200
    ],
}


@pytest.mark.parametrize("parts", SLOW.values(), ids=SLOW)
async def test_a_slow_sender_of_a_head(front, parts):
    """It is cut when its time is up, however busily it goes on."""
    proxy = await front("--header-timeout=300ms")
    assert await silence(proxy, *parts) == b""
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_slow_second_head(front):
    """The next request on a kept connection has no more time once it has begun."""
    proxy = await front("--header-timeout=300ms")
    answer = await silence(proxy, KEPT, b"GET /")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_head_behind_another(front, cluster):
    """Half a request that came while the first was answered is no reason to wait for long."""
    proxy = await front("--header-timeout=300ms")
    answer = await silence(proxy, KEPT + b"GET /metr")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_slow_handshake(front, ours, tmp_path):
    """A client that never says hello is cut as well."""
    proxy = await front(config(tmp_path), "--header-timeout=300ms")
    assert await silence(proxy) == b""
    assert await silence(proxy, b"\x16\x03\x01\x02\x00\x01") == b""
    assert await proxy.metric("kmproxy_refused_total", reason="tls") == 2


async def test_an_idle_connection(front):
    """It is kept between requests, and not for ever."""
    proxy = await front("--header-timeout=200ms", "--idle-timeout=2s")
    answer = await silence(proxy, KEPT, b"", b"", b"", b"", b"", b"", b"", KEPT)
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_a_slow_reader(front, cluster):
    """The scrape's time ends it, and its slot is free."""
    cluster.kubelets["node-a"].fail(Fault.BOMB, size=64 << 20)
    proxy = await front("--max-concurrency=1")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port, limit=1)
    writer.write(
        b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n"
        b"X-Prometheus-Scrape-Timeout-Seconds: 2\r\n\r\n"
    )
    await reader.readexactly(1)

    async def broken():
        return await proxy.metric("kmproxy_scrapes_total", code="broken") == 1

    await until(broken)
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    writer.close()


async def test_a_scrape_that_would_last_for_ever(front, cluster):
    """A scraper that says it has a year has --max-scrape-time."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    proxy = await front("--max-scrape-time=200ms")
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="31536000")
    assert status == 504
    assert "within 0.2 s" in text


async def test_a_body_that_never_comes(front):
    """A refused request does not wait for what it has announced."""
    proxy = await front()
    head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    assert (await silence(proxy, head)).startswith(b"HTTP/1.1 405 ")


# Requests behind a request.

LONG = (
    b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
)
BEHIND = {
    "nothing": (b"", False),
    "a few": (KEPT * 20, False),
    "many": (KEPT * 40, False),
    "more than a head may have": (KEPT * 1000, True),
    "thousands": (KEPT * 20_000, True),
    "a body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(1 << 20), True),
    "another protocol": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + bytes(1 << 20),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("behind", "refused"), BEHIND.values(), ids=BEHIND)
async def test_a_client_that_leaves_with_more_on_its_way(front, cluster, behind, refused, at_once):
    """It is seen to leave, or refused: its slot is free, and not only when the scrape's time is up."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    proxy = await front("--max-concurrency=1")

    async def at_work():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 1

    async def over():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 0

    async def refusals():
        return await proxy.metric("kmproxy_refused_total", reason="form") == 1

    ((_, writer),) = await connected(proxy, 1)
    if at_once:
        writer.write(LONG + behind)
    else:
        writer.write(LONG)
        await until(at_work)
        writer.write(behind)
    await until(refusals if refused else at_work)
    writer.transport.abort()
    await until(over)
    assert await refusals() is refused
    cluster.kubelets["node-a"].recover()
    assert await served(proxy, None)


async def test_requests_behind_a_request(front):
    """A few are answered in their order."""
    proxy = await front()
    answer = await ask(proxy, None, KEPT * 5 + GET % b"/nope")
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(b"404")


async def test_an_answer_that_is_cut_does_not_look_whole(front, cluster):
    """It ends by a reset, as HTTP/1.0 has no other sign of it."""
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY)
    proxy = await front()
    ((reader, writer),) = await connected(proxy, 1)
    writer.write(b"GET /metrics/cadvisor HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"team=" in await reader.readuntil(b"team=")
    writer.write(KEPT * 1000)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()


@pytest.fixture
async def unfetched(front, cluster, monkeypatch):
    """A function that starts a daemon, and a client for whom most of its answer is still held."""
    lines = b'm{namespace="payments"} 1\n' * 1000
    kind = "text/plain; version=0.0.4"
    cluster.kubelets["node-a"].fail(Fault.BODY, body=lines, content_type=kind)

    def listening(where, family):
        sock = socket.create_server(where, family=family)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that the rest waits
        return sock

    monkeypatch.setattr("kmproxy.web.listener._listening", listening)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)

        async def start(*flags):
            proxy = await front(*flags)
            await loop.sock_connect(client, ("127.0.0.1", proxy.daemon.metrics_port))
            await loop.sock_sendall(client, b"GET /metrics HTTP/1.0\r\n\r\n")

            async def answered():
                return await proxy.metric("kmproxy_scrapes_total", code="200") == 1

            await until(answered)
            return proxy, client

        yield start


async def test_an_answer_that_nobody_fetches(unfetched):
    """Where its connection has to make room before it is sent, it does not look whole either."""
    proxy, client = await unfetched("--max-connections=1")
    ((_, writer),) = await connected(proxy, 1)
    assert await ends_in_a_reset(client)
    writer.close()
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 1


# The end of the process.


async def test_an_answer_that_is_fetched_while_the_process_ends(unfetched):
    """What was answered before is sent to its end."""
    proxy, client = await unfetched()
    stopped = asyncio.create_task(proxy.daemon.stop())
    await until(lambda: refused(proxy.daemon.metrics_port))
    for _ in range(100):
        await asyncio.sleep(0)  # what does not wait for the client is over by then
    answer = b""
    while piece := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
        answer += piece
    assert answer.count(b'team="payments"} 1\n') == 1000
    await stopped


async def test_an_answer_that_nobody_fetches_while_the_process_ends(unfetched, monkeypatch):
    """It does not keep the process, which takes what is not sent with it; so it is broken off."""
    monkeypatch.setattr("kmproxy.web.listener.LINGER", 0.1)
    proxy, client = await unfetched()
    async with asyncio.timeout(10):
        await proxy.daemon.stop()
    assert await ends_in_a_reset(client)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_has_no_end_when_the_process_ends(
    front, cluster, monkeypatch, version
):
    """It is broken off by a reset, as whatever else cuts it."""
    monkeypatch.setattr("kmproxy.web.listener.SHUTDOWN_TIMEOUT", 0.1)
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY)
    proxy = await front()
    ((reader, writer),) = await connected(proxy, 1)
    minute = b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    writer.write(b"GET /metrics/cadvisor HTTP/%b\r\nHost: x\r\n%b\r\n" % (version, minute))
    await reader.readuntil(b"team=")
    async with asyncio.timeout(10):
        await proxy.daemon.stop()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


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
