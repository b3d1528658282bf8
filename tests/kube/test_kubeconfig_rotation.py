"""Kubeconfigs and the files they name rotate without a restart, and leave no secret on a disk."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from pathlib import Path

import pytest
import trustme

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.tls import TlsContext
from kmproxy.kube.kubeconfig import Kubeconfig
from tests.conftest import credential_failures
from tests.support.kubeconfigs import write
from tests.support.sites import Site, metrics, new_ca, pem_of


async def test_a_kubeconfig_that_changes(tmp_path, clock, own_metrics, cluster):
    """A new token is used a minute later at most; a bad new file keeps the old one."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path)
    identity = await Kubeconfig.load(str(path), clock=clock, errors=own_metrics.credential_errors)
    old = f"Bearer {cluster.token}"
    assert await identity.authorization() == old
    new = f"Bearer {cluster.rotate_token()}"
    cluster.write_kubeconfig(path)
    assert await identity.authorization() == old
    clock.now += TOKEN_AGE
    assert await identity.authorization() == new
    path.write_text("{")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == new
    assert credential_failures(own_metrics, "kubeconfig") == 1
    assert identity.server == cluster.api.url


async def test_no_token_over_plain_http(tmp_path, clock, own_metrics):
    """A kubeconfig whose server is http:// sends no credential, as client-go does not."""
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:8001'}}]\n"
        "users: [{name: u, user: {token: secret}}]\n"
    )
    identity = await Kubeconfig.load(
        str(tmp_path / "config"), clock=clock, errors=own_metrics.credential_errors
    )
    assert await identity.authorization() is None


async def test_a_token_file_rotates(tmp_path, mount, clock, own_metrics):
    """What a tokenFile holds is stripped, and read again a minute later at most."""
    mount.swap(token="one\n")
    path = write(tmp_path / "config", {"tokenFile": str(mount.path / "token")})
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Bearer one"
    mount.swap(token="two\n")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer two"
    mount.swap(token="not a token")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer two"
    assert credential_failures(own_metrics, "kubeconfig") == 1


@pytest.mark.parametrize("inline", [False, True])
async def test_a_client_certificate_rotates(tmp_path, mount, clock, own_metrics, inline):
    """As files or as text, a new certificate makes a new context a minute later at most."""
    ca = trustme.CA()

    def renew():
        leaf = ca.issue_cert("node")
        cert, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
        mount.swap(crt=cert, key=key)
        user = {
            "client-certificate": str(mount.path / "crt"),
            "client-key": str(mount.path / "key"),
        }
        if inline:
            encoded = [base64.b64encode(each).decode() for each in (cert, key)]
            names = ("client-certificate-data", "client-key-data")
            user = dict(zip(names, encoded, strict=True))
        return write(tmp_path / "config", user, {"insecure-skip-tls-verify": True})

    identity = await Kubeconfig.load(renew(), clock=clock, errors=own_metrics.credential_errors)
    tls = TlsContext(
        lambda: identity.trust, "CA", clock=clock, errors=own_metrics.credential_errors
    )
    first = tls.current()
    renew()
    clock.now += TOKEN_AGE
    assert await identity.authorization() is None
    assert tls.current() is not first
    assert credential_failures(own_metrics, "certificate") == 0


def opened(directory):
    """The files of a directory that this process has open, also those that were removed."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this look
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(f"{directory}/")]


async def test_what_stands_in_it_is_on_no_disk(tmp_path, clock, own_metrics, monkeypatch):
    """Certificates and keys in the text of a kubeconfig are not left in files, however often."""
    disk = tmp_path / "tmp"
    disk.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    ca = new_ca()

    def renew():
        def data(pem):
            return base64.b64encode(pem).decode()

        cert, key = pem_of(ca.issue_cert("node", common_name="node"))
        return write(
            tmp_path / "config",
            {"client-certificate-data": data(cert), "client-key-data": data(key)},
            {"certificate-authority-data": data(ca.cert_pem.bytes()), "server": site.url},
        )

    async with Site(lambda _: metrics("ok"), ca) as site:
        identity = await Kubeconfig.load(renew(), clock=clock, errors=own_metrics.credential_errors)
        for _ in range(3):
            assert list(disk.iterdir()) == opened(disk) == []
            tls = TlsContext(
                lambda: identity.trust, "CA", clock=clock, errors=own_metrics.credential_errors
            )
            _, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=tls.current())
            writer.transport.abort()
            before = identity.trust
            clock.now += TOKEN_AGE
            await identity.authorization()
            assert identity.trust == before
            renew()
            clock.now += TOKEN_AGE
            await identity.authorization()
            assert identity.trust != before
    assert "PRIVATE" not in repr(identity.trust)
    assert credential_failures(own_metrics, "kubeconfig") == 0


async def test_a_token_beside_a_file(tmp_path, mount, clock, own_metrics):
    """The file's token is sent; the other one where the file cannot be read."""
    user = {"token": "inline", "tokenFile": str(mount.path / "token")}
    path = write(tmp_path / "config", user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Bearer inline"
    mount.swap(token="of-the-file\n")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer of-the-file"
