"""TLS of the listener: certificates and client CAs rotate while connections are open."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.clients import KEPT, answers
from tests.support.listener import PAIR, ask, config, served
from tests.support.tls import Authority, write_config

MUTUAL = PAIR | {"client_ca_file": "ca.crt", "client_auth_type": "RequireAndVerifyClientCert"}


async def test_tls(front, ours, tmp_path):
    """A client that trusts the authority is served. Plain HTTP and other trust are not."""
    proxy = await front(config(tmp_path))
    assert await served(proxy, ours.client())
    assert await ask(proxy, None) == b""
    assert await ask(proxy, Authority().client()) == b""
    assert await proxy.metric("kmproxy_refused_total", reason="tls") == 2
    expiry = "kmproxy_certificate_expiry_timestamp_seconds"
    assert await proxy.metric(expiry, certificate="serving") > 1e9


async def test_the_flags_of_kubelet_meta_proxy(front, ours, tmp_path):
    """-metrics-cert-path serves the enriched metrics over TLS."""
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
    """Only the configured TLS versions are accepted."""
    proxy = await front(config(tmp_path, PAIR | tls))
    client = ours.client()
    client.minimum_version = client.maximum_version = version
    assert await served(proxy, client) is works


async def test_ciphers(front, ours, tmp_path):
    """Only the configured ciphers are accepted."""
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]
    proxy = await front(config(tmp_path, PAIR | {"cipher_suites": suites}))
    client = ours.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("AES256-GCM-SHA384+ECDHE:ECDHE+AESGCM+AES256")
    assert await served(proxy, client)
    client.set_ciphers("ECDHE+AESGCM+AES128")
    assert not await served(proxy, client)


async def test_client_certificates(front, ours, tmp_path):
    """A certificate of the CA is required: none, or one of another CA, is refused."""
    proxy = await front(config(tmp_path, MUTUAL))
    assert await served(proxy, ours.client(ours))
    assert not await served(proxy, ours.client())
    assert not await served(proxy, ours.client(Authority()))


async def test_a_client_certificate_if_given(front, ours, tmp_path):
    """No certificate is accepted, a certificate of another CA is not."""
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
    """The certificate must have exactly one of the allowed names."""
    proxy = await front(config(tmp_path, MUTUAL | {"client_allowed_sans": allowed}))
    assert await served(proxy, ours.client(ours, *names)) is works
    refused = await proxy.metric("kmproxy_refused_total", reason="certificate")
    assert refused == (0 if works else 1)


async def test_a_new_certificate_is_served(front, ours, tmp_path):
    """New connections get the new certificate without a restart."""
    proxy = await front(config(tmp_path))
    new = Authority()
    new.write_pair(tmp_path)

    async def rotated():
        return await served(proxy, new.client()) and not await served(proxy, ours.client())

    await until(rotated)


async def test_a_mismatched_pair_does_not_break_what_runs(front, ours, tmp_path, caplog):
    """While certificate and key do not match, the old pair is served."""
    proxy = await front(config(tmp_path))
    new = Authority()
    new.write_pair(tmp_path, key=False)

    async def told():
        assert await served(proxy, ours.client())
        return await proxy.metric("kmproxy_credential_errors_total", credential="web_config") > 0

    await until(told)
    assert "the key does not belong to" in caplog.text
    assert await served(proxy, ours.client())
    new.write_pair(tmp_path)
    await until(lambda: served(proxy, new.client()))


async def test_an_old_client_ca_is_refused_after_its_rotation(front, ours, tmp_path):
    """It is refused in new handshakes, resumed sessions and kept connections."""
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
    """Connects, scrapes, and returns the TLS session."""
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
    """Sessions resume without a rotation, so the refusal above comes from the rotation."""
    proxy = await front(config(tmp_path, MUTUAL))
    client = ours.client(ours)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    session = await asyncio.to_thread(resumable, proxy.daemon.metrics_port, client)
    await asyncio.to_thread(resumable, proxy.daemon.metrics_port, client, session)


async def test_a_kept_connection_stays_while_clients_may(front, ours, tmp_path):
    """A new serving certificate does not end a kept connection."""
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
    """A plain connection ends once TLS is configured."""
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
    """A cut body ends without a TLS close: the client sees an error."""
    proxy = await front(config(tmp_path))
    cluster.kubelets["node-a"].fail(fault)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.daemon.metrics_port, ssl=ours.client()
    )
    writer.write(b"GET /metrics/cadvisor HTTP/1.0\r\n\r\n")
    with pytest.raises(OSError):
        await reader.read()
    writer.close()
