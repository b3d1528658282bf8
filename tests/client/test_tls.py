"""TLS as a client, on real servers: trust, client certificates, and their rotation."""

from __future__ import annotations

import asyncio
import fcntl
import os
import ssl
import subprocess
import sys
import termios

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kmproxy.client.tls import LOOK_AGAIN, TlsContext, Trust
from kmproxy.config.types import File, Secret
from kmproxy.errors import CredentialError
from tests.conftest import credential_failures


def write_ca(path):
    """Writes a new CA's certificate."""
    trustme.CA().cert_pem.write_to_path(str(path))


def test_a_context_follows_its_files(tmp_path, clock, own_metrics):
    """A new CA gives a new context within a minute. The old CA is forgotten."""
    write_ca(tmp_path / "ca")
    trust = Trust(ca=File(str(tmp_path / "ca")))
    tls = TlsContext(lambda: trust, "CA", clock=clock, errors=own_metrics.credential_errors)
    first = tls.current()
    clock.now += LOOK_AGAIN
    assert tls.current() is first
    write_ca(tmp_path / "ca")
    assert tls.current() is first
    clock.now += LOOK_AGAIN
    second = tls.current()
    assert second is not first
    assert len(second.get_ca_certs()) == 1
    assert second.get_ca_certs() != first.get_ca_certs()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bad_new_ca_keeps_the_last_good_one(tmp_path, clock, own_metrics, content):
    """A missing or damaged CA file is counted, and the old context stays meanwhile."""
    write_ca(tmp_path / "ca")
    trust = Trust(ca=File(str(tmp_path / "ca")))
    tls = TlsContext(lambda: trust, "CA", clock=clock, errors=own_metrics.credential_errors)
    first = tls.current()
    (tmp_path / "ca").unlink()
    if content is not None:
        (tmp_path / "ca").write_text(content)
    clock.now += LOOK_AGAIN
    assert tls.current() is first
    assert credential_failures(own_metrics, "ca") == 1
    write_ca(tmp_path / "ca")
    clock.now += LOOK_AGAIN
    assert tls.current() is not first


def test_a_context_that_never_was(tmp_path, clock, own_metrics):
    """Without an earlier good CA, a bad one is an error that names the file."""
    trust = Trust(ca=File(str(tmp_path / "ca")))
    tls = TlsContext(lambda: trust, "the CA", clock=clock, errors=own_metrics.credential_errors)
    with pytest.raises(CredentialError, match=r"the CA: .*/ca: No such file"):
        tls.current()


class Party:
    """A CA, and certificates of it."""

    def __init__(self):
        self.ca = trustme.CA()
        self.pem = self.ca.cert_pem.bytes()

    def pair(self, name):
        """The PEM of a new certificate and of its key."""
        leaf = self.ca.issue_cert("127.0.0.1", common_name=name)
        return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()


class Server:
    """A TLS server on a real socket that asks for a client certificate, and tells whose it was."""

    def __init__(self, party, version=ssl.TLSVersion.TLSv1_3):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.maximum_version = version
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(cadata=party.pem.decode())
        party.ca.issue_cert("127.0.0.1").configure_cert(self.context)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._greet, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _greet(self, _, writer):
        peer = writer.get_extra_info("peercert") or {}
        names = [
            value for part in peer.get("subject", ()) for key, value in part if key == "commonName"
        ]
        writer.write(" ".join(names).encode() or b"nobody")
        await writer.drain()
        writer.close()

    async def greets(self, context):
        """The name that the server sees in a client with this context."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()


@pytest.fixture
def party():
    """A CA that server and client share."""
    return Party()


def text(data):
    """A PEM as text in a configuration."""
    return Secret(data.decode())


async def test_a_client_certificate(party, mount):
    """Files, text, and a mix of both give the same certificate; so does the CA."""
    cert, key = party.pair("kmproxy")
    mount.swap(ca=party.pem, cert=cert, key=key, both=cert + key)
    files = {name: File(str(mount.path / name)) for name in ("ca", "cert", "key", "both")}
    async with Server(party) as server:
        for trust in (
            Trust(files["ca"], files["cert"], files["key"]),
            Trust(text(party.pem), text(cert), text(key)),
            Trust(text(party.pem), files["cert"], text(key)),
            Trust(files["ca"], text(cert), files["key"]),
            Trust(files["ca"], files["both"]),
            Trust(verify=False, cert=text(cert), key=text(key)),
        ):
            assert await server.greets(trust.context()) == "kmproxy"
        assert await server.greets(Trust(files["ca"]).context()) == "nobody"


async def test_a_client_certificate_rotates(party, mount, clock, own_metrics):
    """After a swap of links a new pair is used within a minute. A bad one never is."""
    cert, key = party.pair("one")
    mount.swap(ca=party.pem, cert=cert, key=key)
    trust = Trust(*(File(str(mount.path / name)) for name in ("ca", "cert", "key")))
    tls = TlsContext(lambda: trust, "kubelets", clock=clock, errors=own_metrics.credential_errors)
    async with Server(party) as server:
        assert await server.greets(tls.current()) == "one"
        cert, key = party.pair("two")
        mount.swap(ca=party.pem, cert=cert, key=key)
        clock.now += LOOK_AGAIN - 0.1
        assert await server.greets(tls.current()) == "one"
        clock.now += 0.1
        assert await server.greets(tls.current()) == "two"
        bad = [
            {"ca": party.pem, "cert": party.pair("x")[0], "key": key},  # of another pair
            {"ca": party.pem, "cert": cert},
            {"ca": party.pem, "cert": cert, "key": b"planted-secret"},
        ]
        for count, files in enumerate(bad, 1):
            mount.swap(**files)
            clock.now += LOOK_AGAIN
            assert await server.greets(tls.current()) == "two"
            assert credential_failures(own_metrics, "certificate") == count
        cert, key = party.pair("three")
        mount.swap(ca=party.pem, cert=cert, key=key)
        clock.now += LOOK_AGAIN
        assert await server.greets(tls.current()) == "three"


async def test_a_ca_rotates(mount, clock, own_metrics):
    """After a swap of links servers of the new CA are trusted, and of the old CA refused."""
    old, new = Party(), Party()
    mount.swap(ca=old.pem)
    trust = Trust(File(str(mount.path / "ca")))
    tls = TlsContext(lambda: trust, "kubelets", clock=clock, errors=own_metrics.credential_errors)
    async with Server(old) as before, Server(new) as after:
        assert await before.greets(tls.current()) == "nobody"
        with pytest.raises(ssl.SSLCertVerificationError):
            await after.greets(tls.current())
        mount.swap(ca=new.pem)
        clock.now += LOOK_AGAIN
        assert await after.greets(tls.current()) == "nobody"
        with pytest.raises(ssl.SSLCertVerificationError):
            await before.greets(tls.current())


async def test_another_trust_is_looked_at_at_once(party, clock, own_metrics):
    """A kubeconfig with other files is read without waiting for a minute."""
    pairs = iter((party.pair("one"), party.pair("two")))
    trust = Trust()

    def show_next():
        nonlocal trust
        cert, key = next(pairs)
        trust = Trust(text(party.pem), text(cert), text(key))

    show_next()
    tls = TlsContext(lambda: trust, "kubelets", clock=clock, errors=own_metrics.credential_errors)
    async with Server(party) as server:
        assert await server.greets(tls.current()) == "one"
        show_next()
        assert await server.greets(tls.current()) == "two"


async def test_the_least_version(party):
    """The minimum is TLS 1.2. With 1.3 as minimum, a server with 1.2 is refused."""
    async with Server(party, ssl.TLSVersion.TLSv1_2) as server:
        assert await server.greets(Trust(text(party.pem)).context()) == "nobody"
        with pytest.raises(OSError):  # of TLS, or a connection that the server has reset for it
            await server.greets(Trust(text(party.pem), minimum="TLS13").context())


@pytest.mark.parametrize("inline", [False, True])
def test_an_encrypted_key_is_refused(party, tmp_path, inline):
    """An encrypted key is refused at once, without a prompt on a terminal."""
    cert, key = party.pair("kmproxy")
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    (tmp_path / "cert").write_bytes(cert)
    (tmp_path / "key").write_bytes(locked)
    program = (
        "import sys, kmproxy.client.tls as tls, kmproxy.config.types as values\n"
        f"text = {inline}\n"
        "cert, key = (values.Secret(open(each).read()) if text else values.File(each)\n"
        "             for each in sys.argv[1:])\n"
        "try:\n    tls.Trust(cert=cert, key=key).context()\n"
        "except tls.CredentialError as error:\n    print(error)\n"
    )
    master, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "cert"), str(tmp_path / "key")],
            stdin=terminal,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.stdout.startswith("client certificate ")


def test_text_that_is_no_certificate():
    """Invalid text is refused. The error shows neither it nor the key."""
    for trust in (
        Trust(Secret("planted-secret")),
        Trust(Secret("planted-\u00e9")),
        Trust(Secret("")),
        Trust(cert=Secret("planted-secret"), key=Secret("planted-secret")),
    ):
        with pytest.raises(CredentialError) as raised:
            trust.context()
        assert "planted" not in str(raised.value)
        assert "planted" not in repr(trust)


@pytest.mark.parametrize("what", ["intermediate", "leaf", "bundle", "broken", "text"])
async def test_what_is_trusted_by_itself(tmp_path, caplog, what):
    """An intermediate CA or a server certificate is trusted, as in Go. Broken ones are skipped."""
    root = trustme.CA()
    intermediate = root.create_child_ca()
    leaf = intermediate.issue_cert("localhost")
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    pem = {
        "intermediate": intermediate.cert_pem.bytes(),
        "leaf": leaf.cert_chain_pems[0].bytes(),
        "bundle": trustme.CA().cert_pem.bytes() + root.cert_pem.bytes(),
        "broken": broken + root.cert_pem.bytes() + broken + b"-----BEGIN CERTIFICATE-----\n",
        "text": "Zertifikat für Zürich\n".encode("latin-1") + root.cert_pem.bytes(),
    }[what]
    (tmp_path / "ca").write_bytes(pem)
    context = Trust(File(str(tmp_path / "ca"))).context()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(serving)
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1",
                port,
                ssl=Trust(text(new_root())).context(),
                server_hostname="localhost",
            )
    said = f"CA {tmp_path / 'ca'}: kmproxy cannot read, and leaves out, certificate 1, 3, 4 of 4"
    assert (said in caplog.text) == (what == "broken")


def new_root():
    """The PEM of an unused CA."""
    return trustme.CA().cert_pem.bytes()


def test_the_system_s_own_are_trusted_by_themselves_too():
    """The system's trust has the same partial-chain flag as a CA file."""
    assert Trust().context().verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
