"""Kubelets' certificates with --kubelet-tls-pin, on real TLS servers.

Each server records every byte after the handshake, so a token that was sent is found.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest
import trustme
import yaml

from kmproxy.cli.read import read_config
from kmproxy.client import pin_file as pinfile
from kmproxy.client.pins import HEAD, decode
from kmproxy.errors import ConfigError
from kmproxy.kube.nodes import REMEMBERED
from kmproxy.own_file import replace_own
from kmproxy.simulator.objects import node_object
from tests.conftest import until
from tests.support.sites import ForwardProxy

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nm 1\n"


class Kubelet:
    """A TLS server on 127.0.0.1 with given certificates, which records received bytes.

    `sent` maps each certificate shown to the bytes of its connections after the handshake.
    """

    def __init__(self):
        self.sent = {}
        self.connections = 0
        self._leaves = []
        self._writers = []

    def show(self, *leaves):
        """Shows these certificates in turn, one per connection. Open connections end."""
        self._leaves = list(leaves)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def got(self, leaf):
        """The bytes sent after this certificate, or None without a handshake with it."""
        return self.sent.get(id(leaf))

    async def __aenter__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("unused").configure_cert(context)
        context.sni_callback = self._choose
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.show()

    def _choose(self, connection, *_):
        leaf = self._leaves.pop(0)
        self._leaves.append(leaf)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        context.leaf = leaf
        connection.context = context

    async def _serve(self, reader, writer):
        leaf = writer.get_extra_info("ssl_object").context.leaf
        self._writers.append(writer)
        self.connections += 1
        said = self.sent.setdefault(id(leaf), bytearray())
        try:
            while data := await reader.read(65536):
                said += data
                if data.endswith(b"\r\n\r\n"):
                    writer.write(ANSWER)
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def kubelet():
    """A kubelet in place of node-a's."""
    async with Kubelet() as running:
        yield running


def own(*names):
    """A certificate that no CA of the cluster verifies."""
    return trustme.CA(organization_name="nobody").issue_cert(*(names or ("127.0.0.1",)))


def place(cluster, name, port):
    """Gives a Node object of this name a local port."""
    return cluster.api.store.put("nodes", node_object(name, port))["metadata"]["uid"]


async def refused(proxy, reason):
    """The number of certificates refused for a reason."""
    return await proxy.metric("kmproxy_kubelet_certificates_refused_total", reason=reason)


async def test_the_first_certificate_is_pinned(front, kubelet, caplog):
    """The same certificate passes. Another one is 502, counted, and gets no byte."""
    caplog.set_level(logging.INFO)
    real, impostor = own(), own()
    proxy = await front(f"--node-port={kubelet.port}", "--kubelet-tls-pin")
    for _ in range(2):
        kubelet.show(real)
        assert await proxy.get() == (200, "m 1\n")
    assert b"Authorization: Bearer " in kubelet.got(real)
    kubelet.show(impostor)
    for _ in range(2):
        status, text = await proxy.get()
        assert status == 502
        assert "shows another certificate than before" in text
        assert "restart kmproxy to forget the first" in text
    await until(lambda: asyncio.sleep(0, kubelet.got(impostor) is not None))
    assert kubelet.got(impostor) == b""
    assert await refused(proxy, "changed") == 2
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="tls") == 2
    assert await proxy.metric("kmproxy_kubelet_pins") == 1
    kubelet.show(real)
    assert (await proxy.get())[0] == 200
    assert caplog.text.count("pinned the certificate of the kubelet") == 1


async def test_without_the_pin_nothing_is_believed(front, kubelet):
    """By default an unverified certificate gets no byte."""
    leaf = own()
    kubelet.show(leaf)
    proxy = await front(f"--node-port={kubelet.port}")
    status, text = await proxy.get()
    assert status == 502
    assert "give its CA by --kubelet-ca-file, or --kubelet-tls-pin" in text
    assert not kubelet.got(leaf)


async def test_a_pinned_connection_is_used_again(front, kubelet):
    """Only the first handshakes are made, and the last connection carries all requests."""
    kubelet.show(own())
    proxy = await front(f"--node-port={kubelet.port}", "--kubelet-tls-pin")
    for _ in range(5):
        assert (await proxy.get())[0] == 200
    assert kubelet.connections == 1


async def test_a_verified_certificate(front, cluster, kubelet):
    """A verified certificate replaces the pin. From then on only verified ones pass."""
    first, issued, renewed = own(), *(cluster._authorities.issue_cert("127.0.0.1") for _ in "ab")
    proxy = await front(f"--node-port={kubelet.port}", "--kubelet-tls-pin")
    for leaf in (first, issued, renewed):
        kubelet.show(leaf)
        assert (await proxy.get())[0] == 200
    kubelet.sent.clear()
    kubelet.show(first)
    status, text = await proxy.get()
    assert status == 502
    assert "before verified by a CA" in text
    assert not kubelet.got(first)
    assert await refused(proxy, "unverified") == 1


async def test_a_certificate_for_another_name(front, cluster, kubelet):
    """A certificate of the cluster's CA for another host is refused."""
    first, other = own(), cluster._authorities.issue_cert("10.0.0.9")
    kubelet.show(first)
    proxy = await front(f"--node-port={kubelet.port}", "--kubelet-tls-pin")
    assert (await proxy.get())[0] == 200
    kubelet.show(other)
    assert (await proxy.get())[0] == 502
    assert not kubelet.got(other)


async def test_beside_a_ca_file_and_a_server_name(front, kubelet, tmp_path):
    """CA file and server name say which certificates verify. Others are pinned."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    flags = (f"--kubelet-ca-file={tmp_path / 'ca.crt'}", "--kubelet-server-name=kubelet.example")
    proxy = await front(f"--node-port={kubelet.port}", "--kubelet-tls-pin", *flags)
    for leaf, status in (
        (own(), 200),
        (ca.issue_cert("127.0.0.1"), 502),
        (ca.issue_cert("kubelet.example"), 200),
        (own("kubelet.example"), 502),
    ):
        kubelet.show(leaf)
        assert (await proxy.get())[0] == status


async def test_first_certificates_at_once(front, kubelet):
    """Of two concurrent first certificates one is pinned, and only it gets the token."""
    leaves = own(), own()
    kubelet.show(*leaves)
    flags = ("--kubelet-tls-pin", "--max-concurrency=16")
    proxy = await front(f"--node-port={kubelet.port}", *flags)
    answers = await asyncio.gather(*(proxy.get() for _ in range(16)))
    assert {status for status, _ in answers} == {200, 502}
    assert sorted(bool(kubelet.got(leaf)) for leaf in leaves) == [False, True]


NODE = "/api/v1/nodes/{}/proxy/metrics"


async def test_two_nodes(front, cluster, kubelet):
    """Each node has its own pin, also with a shared address."""
    async with Kubelet() as other:
        place(cluster, "node-a", kubelet.port)
        place(cluster, "node-b", other.port)
        place(cluster, "node-c", kubelet.port)
        one, two = own(), own()
        kubelet.show(one)
        other.show(two)
        proxy = await front("--all-nodes", "--kubelet-tls-pin")
        for name in ("node-a", "node-b"):
            assert (await proxy.get(NODE.format(name)))[0] == 200
        # Its own handshake: the connection of node-a, idle at the same address, is not taken.
        assert (await proxy.get(NODE.format("node-c")))[0] == 200
        assert kubelet.connections == 2
        other.show(one)
        other.sent.clear()
        assert (await proxy.get(NODE.format("node-b")))[0] == 502
        assert not other.got(one)
        assert (await proxy.get(NODE.format("node-a")))[0] == 200


async def test_a_node_that_is_created_anew(front, cluster, kubelet, clock):
    """A pin belongs to a UID: a new Node object has a new first certificate."""
    old, new = own(), own()
    uid = place(cluster, "node-a", kubelet.port)
    kubelet.show(old)
    proxy = await front("--all-nodes", "--kubelet-tls-pin", clock=clock)
    assert (await proxy.get(NODE.format("node-a")))[0] == 200
    kubelet.show(new)
    assert (await proxy.get(NODE.format("node-a")))[0] == 502
    cluster.api.store.remove("nodes", "node-a")
    assert place(cluster, "node-a", kubelet.port) != uid
    clock.now += REMEMBERED
    assert (await proxy.get(NODE.format("node-a")))[0] == 200
    kubelet.show(old)
    assert (await proxy.get(NODE.format("node-a")))[0] == 502


async def test_a_node_that_moves(front, cluster, kubelet, clock):
    """A certificate moves with its UID. Another one is refused at the new address."""
    leaf, stranger = own(), own()
    place(cluster, "node-a", kubelet.port)
    kubelet.show(leaf)
    proxy = await front("--all-nodes", "--kubelet-tls-pin", clock=clock)
    assert (await proxy.get(NODE.format("node-a")))[0] == 200
    async with Kubelet() as other:
        other.show(stranger)
        place(cluster, "node-a", other.port)
        clock.now += REMEMBERED
        assert (await proxy.get(NODE.format("node-a")))[0] == 502
        assert not other.got(stranger)
        other.show(leaf)
        assert (await proxy.get(NODE.format("node-a")))[0] == 200


@pytest.fixture
def kept(front, kubelet, tmp_path):
    """A function that starts a daemon with a pin file; and the file."""
    path = tmp_path / f"labels{pinfile.SUFFIX}"

    async def start():
        flags = ("--kubelet-tls-pin", f"--label-snapshot={tmp_path / 'labels'}")
        return await front(f"--node-port={kubelet.port}", *flags)

    return start, path


async def test_a_restart(kept, kubelet):
    """Pins are read from the file. Without its line the next certificate is the first."""
    start, path = kept
    real, impostor = own(), own()
    kubelet.show(real)
    proxy = await start()
    assert (await proxy.get())[0] == 200
    await until(lambda: asyncio.sleep(0.01, path.exists()))
    assert path.stat().st_mode & 0o777 == 0o600
    await proxy.daemon.stop()
    (pin,) = decode(path.read_bytes()).values()
    assert pin.name == "127.0.0.1"
    kubelet.show(impostor)
    proxy = await start()
    status, text = await proxy.get()
    assert status == 502
    assert f"restart kmproxy after removing its line from {path}" in text
    assert not kubelet.got(impostor)
    kubelet.show(real)
    assert (await proxy.get())[0] == 200
    await proxy.daemon.stop()
    path.write_bytes(HEAD)
    kubelet.show(impostor)
    proxy = await start()
    assert (await proxy.get())[0] == 200


@pytest.mark.parametrize("how", ["writable", "link", "garbage", "long", "folder"])
async def test_a_file_that_is_not_believed(kept, kubelet, caplog, how):
    """A line and a metric give the reason. It is ignored, and replaced if possible."""
    start, path = kept
    real, planted = own(), HEAD + b"address:127.0.0.1:%d %s x\n" % (kubelet.port, b"a" * 64)
    match how:
        case "writable":
            path.write_bytes(planted)
            path.chmod(0o666)
        case "link":
            replace_own(path.with_name("other"), [planted])
            path.symlink_to(path.with_name("other"))
        case "garbage":
            replace_own(path, [planted, b"\0"])
        case "long":
            replace_own(path, [planted] * 50_000)
        case "folder":
            path.mkdir()
    kubelet.show(real)
    proxy = await start()
    assert (await proxy.get())[0] == 200
    assert await proxy.metric("kmproxy_kubelet_pin_errors_total", operation="read") == 1
    assert caplog.text.count("so kmproxy pins each kubelet's next certificate") == 1
    if how == "folder":
        name, labels = "kmproxy_kubelet_pin_errors_total", {"operation": "write"}
        await until(lambda: proxy.metric(name, **labels))
        assert "cannot be written" in caplog.text
    else:
        await until(lambda: asyncio.sleep(0.01, b"127.0.0.1\n" in path.read_bytes()))
        assert not path.is_symlink()


async def test_the_planted_pin_would_have_counted(kept, kubelet):
    """The same file, owned by the daemon's user only, counts: the control experiment."""
    start, path = kept
    replace_own(path, [HEAD, b"address:127.0.0.1:%d %s x\n" % (kubelet.port, b"a" * 64)])
    kubelet.show(own())
    proxy = await start()
    assert (await proxy.get())[0] == 502


async def test_a_disk_that_hangs(kept, kubelet, monkeypatch, caplog):
    """The start waits a short time for the disk, and no scrape waits."""
    monkeypatch.setattr(pinfile, "PATIENCE", 0.01)
    hung = []

    async def hang(*_):
        hung.append(True)
        await asyncio.Event().wait()

    monkeypatch.setattr(pinfile, "aside", hang)
    start, _ = kept
    kubelet.show(own())
    proxy = await start()
    assert "the disk does not answer" in caplog.text
    assert (await proxy.get())[0] == 200
    await until(lambda: asyncio.sleep(0, len(hung) == 2))
    assert (await proxy.get())[0] == 200


@pytest.mark.parametrize("secured", [False, True])
async def test_through_a_proxy(front, cluster, kubelet, tmp_path, secured):
    """The kubelet's certificate is pinned, never that of an HTTPS proxy."""
    real, impostor = own(), own()
    async with ForwardProxy(
        known={"kubelet": kubelet.port}, ca=cluster._authorities if secured else None
    ) as forward:
        (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": {"proxy_url": forward.url}}))
        flags = ("--node-name-or-ip=kubelet", f"--config={tmp_path / 'k.yaml'}")
        proxy = await front("--kubelet-tls-pin", *flags)
        for leaf, status in ((real, 200), (impostor, 502), (real, 200)):
            kubelet.show(leaf)
            assert (await proxy.get())[0] == status
        assert not kubelet.got(impostor)
        assert await refused(proxy, "changed") == 1


async def test_a_proxy_that_no_ca_verifies(front, kubelet, tmp_path):
    """A proxy is never pinned: an unverified one gets nothing."""
    kubelet.show(own())
    async with ForwardProxy(known={"kubelet": kubelet.port}, ca=trustme.CA()) as forward:
        (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": {"proxy_url": forward.url}}))
        flags = ("--node-name-or-ip=kubelet", f"--config={tmp_path / 'k.yaml'}")
        proxy = await front("--kubelet-tls-pin", *flags)
        status, text = await proxy.get()
        assert status == 502
        assert "does not verify" in text
        assert forward.asked == []
        assert await proxy.metric("kmproxy_kubelet_pins") == 0


@pytest.mark.parametrize(
    ("flags", "level", "says"),
    [
        (["--kubelet-insecure-tls"], "WARNING", "any server at a kubelet's address gets the token, which reads the metrics of every kubelet;"),
        (["--kubelet-insecure-tls", "--all-nodes"], "WARNING", "with --all-nodes each kubelet reports its own address;"),
        (["--kubelet-tls-pin"], "INFO", "server that answers first at its address gets the token"),
        (["--config={insecure}"], "WARNING", "kubelet.tls_config.insecure_skip_verify: any server"),
        ([], None, "gets the token"),
        (["--kubelet-insecure-tls", "--kubelet-scheme=http"], None, "gets the token"),
    ],
)  # fmt: skip
async def test_what_is_exposed_is_said_at_the_start(front, tmp_path, caplog, flags, level, says):
    """One line tells the risk. With verified certificates there is no line."""
    caplog.set_level(logging.INFO)
    insecure = tmp_path / "insecure.yaml"
    insecure.write_text("kubelet: {tls_config: {insecure_skip_verify: true}}")
    await front(*(flag.format(insecure=insecure) for flag in flags))
    told = [record for record in caplog.records if "gets the token" in record.getMessage()]
    assert [record.levelname for record in told] == ([level] if level else [])
    assert all(says in record.getMessage() for record in told)


def test_what_it_cannot_stand_beside(tmp_path):
    """Pinning is refused beside a flag that disables verification."""
    with pytest.raises(ConfigError, match="insecure-tls makes no sense beside --kubelet-tls-pin"):
        read_config(["--kubelet-insecure-tls", "--kubelet-tls-pin"])
    path = tmp_path / "k.yaml"
    path.write_text("kubelet: {tls_config: {insecure_skip_verify: true}}")
    with pytest.raises(ConfigError, match="makes no sense beside --kubelet-tls-pin"):
        read_config([f"--config={path}", "--kubelet-tls-pin"])
    for flags in (["--kubelet-scheme=http"], ["--kube-apiserver=api"]):
        _, (warning,) = read_config([*flags, "--kubelet-tls-pin"])
        assert "--kubelet-tls-pin has no effect" in warning
