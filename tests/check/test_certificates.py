"""Certificates of servers: their facts, and the flag that would accept them."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kmproxy.check.certificates import Server, parse_certificate
from kmproxy.client.tls import Trust
from kmproxy.config.sections import KubeletConfig
from kmproxy.config.types import File
from kmproxy.errors import UpstreamError
from kmproxy.kube.identity import Identity
from tests.conftest import until


class Nobody(Identity):
    """An identity that trusts one CA, and has a client certificate that it never shows here."""

    def __init__(self, directory, ca):
        self.server = "https://127.0.0.1"
        self._ca, self._certificate = directory / "cluster.crt", directory / "client.pem"
        ca.cert_pem.write_to_path(self._ca)
        ca.issue_cert("planted@example.com").private_key_and_cert_chain_pem.write_to_path(
            self._certificate
        )

    @property
    def trust(self):
        return Trust(File(str(self._ca)), File(str(self._certificate)))

    async def authorization(self, *, anew=False):  # noqa: ARG002 - it always says the same
        raise AssertionError("no token is asked for")


@pytest.fixture
def ca():
    """The cluster's CA."""
    return trustme.CA(organization_name="cluster")


@pytest.fixture
def identity(tmp_path, ca):
    """An identity that trusts the cluster's CA."""
    return Nobody(tmp_path, ca)


@pytest.fixture
async def serving():
    """A function that starts a TLS server with a certificate; returns its port and its input."""
    servers = []

    async def start(certificate, *, choose=None, newest=ssl.TLSVersion.MAXIMUM_SUPPORTED):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = choose
        context.maximum_version = newest
        if isinstance(certificate, trustme.LeafCert):
            certificate.configure_cert(context)
        else:
            context.load_cert_chain(certificate)
        trustme.CA().configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        seen = []

        async def handle(reader, writer):
            tls = writer.get_extra_info("ssl_object")
            seen.append((await reader.read(), tls.getpeercert(binary_form=True)))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        return server.sockets[0].getsockname()[1], seen

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def self_signed(path, *names):
    """Writes a self-signed certificate; returns the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-a@1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1)
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternative, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def examine(identity, port, **settings):
    """The findings about a kubelet's certificate with these settings."""
    config = KubeletConfig(**settings)
    return await Server.of_kubelet(config, identity, "127.0.0.1", port).examine()


async def test_a_certificate_of_the_cluster(identity, ca, serving):
    """It is verified, its names and issuer are read, and only a handshake is made."""
    port, seen = await serving(ca.issue_cert("127.0.0.1", "node-a", common_name="system:node:a"))
    found = await examine(identity, port)
    assert (found.verified, found.problem, found.accepted_by) == (True, "", ())
    assert found.server == f"127.0.0.1:{port}"
    assert "CN=system:node:a" in found.certificate.subject
    assert "O=cluster" in found.certificate.issuer
    assert found.certificate.names == ("127.0.0.1", "node-a")
    assert found.certificate.not_after == "3000-01-01T00:00:00+00:00"
    assert found.certificate.self_signed is False
    await until(lambda: asyncio.sleep(0, len(seen) == 2))
    assert set(seen) == {(b"", None)}


async def test_another_name(identity, ca, serving):
    """The suggested server name was tried before."""
    port, _ = await serving(ca.issue_cert("*.example.com", "node-a", "node-b"))
    found = await examine(identity, port)
    assert found.verified is False
    assert "does not verify" in found.problem
    assert found.accepted_by == (
        "with --kubelet-server-name=node-a",
        "with --kubelet-tls-pin, as this kubelet's first certificate",
        "with --kubelet-insecure-tls, not verified",
    )
    assert (await examine(identity, port, server_name="node-a")).verified


async def test_a_name_is_tried_before_it_is_given(identity, ca, serving):
    """A name for which the server shows another certificate is not suggested."""
    leaf = ca.issue_cert("node-a", "node-b")
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("node-a").configure_cert(other)

    def choose(connection, name, _):
        if name == "node-a":
            connection.context = other

    port, _ = await serving(leaf, choose=choose)
    found = await examine(identity, port)
    assert found.accepted_by[0] == "with --kubelet-server-name=node-b"


async def test_a_foreign_ca(identity, serving):
    """The missing CA is named."""
    port, _ = await serving(trustme.CA(organization_name="foreign").issue_cert("127.0.0.1"))
    found = await examine(identity, port)
    assert found.verified is False
    assert "--kubelet-ca-file" in found.problem
    first, pin, last = found.accepted_by
    assert first.startswith("with --kubelet-ca-file=FILE, where FILE holds the CA OU=")
    assert "O=foreign" in first
    assert "--kubelet-tls-pin" in pin
    assert "--kubelet-insecure-tls" in last


async def test_a_self_signed_certificate(identity, serving, tmp_path):
    """It is called self-signed. As the CA file, it verifies itself."""
    port, _ = await serving(self_signed(tmp_path / "own.pem", "node-a"))
    found = await examine(identity, port)
    assert found.certificate.self_signed
    assert found.certificate.subject == found.certificate.issuer == "CN=node-a@1"
    assert found.accepted_by[0] == "with --kubelet-ca-file=FILE, where FILE holds this certificate"
    again = await examine(identity, port, ca_file=str(tmp_path / "own.pem"), server_name="node-a")
    assert again.verified


async def test_a_ca_file_too_many(identity, ca, serving, tmp_path):
    """If the cluster's CA is enough, the advice is to drop the flag."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    port, _ = await serving(ca.issue_cert("127.0.0.1"))
    found = await examine(identity, port, ca_file=str(tmp_path / "other.crt"))
    assert found.verified is False
    assert found.accepted_by[0] == "without --kubelet-ca-file, verified by the cluster's CA"


async def test_an_expired_certificate(identity, ca, serving):
    """The advice is to renew it. No name and no CA helps."""
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    port, _ = await serving(ca.issue_cert("127.0.0.1", not_after=long_ago))
    found = await examine(identity, port)
    assert "expired; renew it" in found.problem
    assert found.certificate.not_after == "2020-01-01T00:00:00+00:00"
    assert found.accepted_by == (
        "with --kubelet-tls-pin, as this kubelet's first certificate",
        "with --kubelet-insecure-tls, not verified",
    )


async def test_without_verifying(identity, ca, serving):
    """Without verification, the finding tells whether it would verify."""
    port, _ = await serving(ca.issue_cert("127.0.0.1"))
    found = await examine(identity, port, insecure_tls=True)
    assert (found.verified, found.insecure, found.problem) == (False, True, "")
    port, _ = await serving(trustme.CA().issue_cert("127.0.0.1"))
    found = await examine(identity, port, insecure_tls=True)
    assert (found.verified, found.insecure, found.accepted_by) == (False, True, ())
    assert found.problem


async def test_the_api_server(identity, serving):
    """No flag changes the verification of the API server's certificate."""
    port, _ = await serving(trustme.CA().issue_cert("127.0.0.1"))
    found = await Server.of_apiserver(identity, "127.0.0.1", port).examine()
    assert found.name == "API server"
    assert "check the CA of the kubeconfig" in found.problem
    assert found.accepted_by == ()


async def test_no_server_and_no_tls(identity):
    """A closed port, and a server without TLS, have no certificate."""

    async def handle(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UpstreamError, match="check that the port is right"):
            await examine(identity, port)
    with pytest.raises(UpstreamError, match="cannot be reached: connection refused"):
        await examine(identity, port)


async def test_a_version_that_is_too_old(identity, ca, serving):
    """A handshake that fails for another reason does not blame the certificate."""
    port, _ = await serving(ca.issue_cert("127.0.0.1"), newest=ssl.TLSVersion.TLSv1_2)
    server = Server.of_kubelet(KubeletConfig(), identity, "127.0.0.1", port)
    assert (await server.examine()).verified
    strict = replace(server, trust=replace(server.trust, minimum="TLS13"))
    with pytest.raises(UpstreamError, match="handshake failed"):
        await strict.examine()


def test_what_is_no_certificate():
    """Bytes that are not a certificate are a server error."""
    for der in (b"", b"\x30\x03\x02\x01\x01"):
        with pytest.raises(UpstreamError, match="cannot be read"):
            parse_certificate(der)


def test_a_certificate_without_names(tmp_path):
    """A certificate without names is read."""
    pem = self_signed(tmp_path / "own.pem").read_text().partition("-----END PRIVATE KEY-----")[2]
    assert parse_certificate(ssl.PEM_cert_to_DER_cert(pem.strip())).names == ()
