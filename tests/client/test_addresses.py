"""The addresses of Node objects: which are contacted, on real sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
import trustme

from kmproxy.cli.read import read_config
from kmproxy.client.addresses import NodeAddresses, embedded
from kmproxy.daemon.clients import open_clients
from kmproxy.errors import UpstreamError
from kmproxy.simulator.objects import node_object

ELSEWHERE = NodeAddresses(lambda: "https://10.96.0.1:443")
HERE = NodeAddresses(lambda: "https://127.0.0.1:6443")

REFUSED = {
    "127.0.0.1": "loopback",
    "127.8.8.8": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:7f00:1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "64:ff9b:1::7f00:1": "loopback",
    "64:ff9b:1:7f00:0:100::": "loopback",
    "64:ff9b:1:1:a9:fea9:fe00:0": "link-local",
    "64:ff9b:1:a9:fe:a9fe::": "link-local",
    "64:ff9b:1::a9fe:a9fe": "link-local",
    "64:ff9b:1::": "unspecified",
    "169.254.169.254": "link-local",
    "::ffff:169.254.169.254": "link-local",
    "64:ff9b::a9fe:a9fe": "link-local",
    "fe80::1": "link-local",
    "febf::1": "link-local",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "::ffff:0.0.0.0": "unspecified",
}


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_where_no_node_is_asked(address, kind):
    """Addresses with a different meaning on each machine are refused, also inside IPv6."""
    assert kind in ELSEWHERE.problem(address, 10250)
    assert kind in ELSEWHERE.refusal("node-a", address)


@pytest.mark.parametrize(
    "host",
    ["10.0.0.7", "192.168.1.1", "100.64.0.1", "203.0.113.9", "fd00::7", "2001:db8::1",
     "::ffff:10.0.0.7", "node-a", "ip-10-0-0-7.ec2.internal", "node-a.", "10-0-0-7.nodes"],
)  # fmt: skip
def test_where_nodes_are_asked(host):
    """Other addresses are accepted, and names, whose addresses are checked after resolution."""
    for port in (None, 443, 10250):
        assert ELSEWHERE.problem(host, port) is None


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "a.localhost", "fe80::1%eth0", "fd00::1%/x", "127.1",
     "2130706433", "0x7f.1", "0x7f000001", "10.0.0.1/api/v1/secrets#", "a@10.0.0.1", "10.0.0.1:443",
     "a/b", "a?b", "a b", "a\r\nX: y", "", "x" * 300, "[::1", "ä", "-", "a\0"],
)  # fmt: skip
def test_what_is_no_address(host):
    """Text that would change a URL's host, port or path is refused, and disguised numbers."""
    assert ELSEWHERE.problem(host, 10250)


@pytest.mark.parametrize("port", [-1, 65536, 2**70, 0])
def test_what_is_no_port(port):
    """A port outside of TCP's range is refused."""
    assert ELSEWHERE.problem("10.0.0.7", port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_beside_an_api_server_on_loopback(address):
    """On one machine loopback is allowed. Addresses of no machine stay refused."""
    assert HERE.problem(address, 10250) is None
    for refused in ("169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1"):
        assert HERE.problem(refused, 10250)


def test_the_api_server_may_change():
    """The rule follows the API server's current address, which a kubeconfig can change."""
    url = ["https://127.0.0.1:6443"]
    rule = NodeAddresses(lambda: url[0])
    assert rule.problem("127.0.0.1", 10250) is None
    url[0] = "https://[fd00::1]"
    assert rule.problem("127.0.0.1", 10250)
    assert rule.server_place == ("fd00::1", 443)


def test_what_is_inside():
    """The IPv4 address inside an IPv6 address is found, in each spelling."""
    for text in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "10.0.0.1"):
        assert embedded(text) == {ipaddress.ip_address("10.0.0.1")}
    assert embedded("fd00::1") == {ipaddress.ip_address("fd00::1")}
    local = (
        "64:ff9b:1:a7f:3:400::",
        "64:ff9b:1:a:7f:304::",
        "64:ff9b:1::a:7f03:400:0",
        "64:ff9b:1::a7f:304",
    )
    for text in local:  # prefixes of 48, 56, 64 and 96 bits
        assert ipaddress.ip_address("10.127.3.4") in embedded(text)
        assert ELSEWHERE.problem(text, 10250) is None


class Listener:
    """A local socket that counts connections, and sends nothing."""

    def __init__(self, host="127.0.0.1"):
        self._host = host
        self.connected = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._count, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    def _count(self, _, writer):
        self.connected += 1
        writer.close()


@pytest.fixture
async def away(cluster, tmp_path, clock, own_metrics):
    """A function that opens clients of an API server without a loopback address.

    0.0.0.0 still leads to this machine.
    """
    path = tmp_path / "config"
    cluster.write_kubeconfig(path)
    document = json.loads(path.read_text())
    settings = document["clusters"][0]["cluster"]
    settings["server"] = settings["server"].replace("127.0.0.1", "0.0.0.0")
    settings["tls-server-name"] = "127.0.0.1"
    path.write_text(json.dumps(document))
    async with AsyncExitStack() as stack:

        async def open_them(*flags):
            config, _ = read_config([f"--kubeconfig={path}", "--all-nodes", *flags])
            opened = open_clients(config, {}, clock=clock, metrics=own_metrics)
            return await stack.enter_async_context(opened)

        yield open_them


async def scrape(clients, name="node-a"):
    """The bytes of a node's metrics, as the daemon fetches them."""
    node = await clients.nodes.find(name)
    async with clients.kubelet.fetch(node, "/metrics") as exposition:
        return b"".join([piece async for piece in exposition.pieces])


def place(cluster, name, port, host="127.0.0.1", kind="InternalIP"):
    """Gives a Node object this host and port."""
    node = node_object(name, port, host)
    node["status"]["addresses"] = [{"type": kind, "address": host}]
    cluster.api.store.put("nodes", node)


@pytest.mark.parametrize("flags", [[], ["--kubelet-tls-pin"], ["--kubelet-insecure-tls"],
                                   ["--kubelet-scheme=http"]])  # fmt: skip
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "127.1"])
async def test_a_node_on_loopback(cluster, away, own_metrics, host, flags):
    """502 without a connection, whichever certificates are accepted."""
    async with Listener() as listener:
        place(cluster, "node-a", listener.port, host)
        clients = await away(*flags)
        with pytest.raises(UpstreamError, match="the address in its Node object") as raised:
            await scrape(clients)
        assert (raised.value.status, raised.value.reason) == (502, "bad_address")
        assert listener.connected == 0


@pytest.fixture
def resolved(monkeypatch):
    """A function that adds names to the system's resolver."""
    known, real = {}, socket.getaddrinfo

    def look_up(host, port, *rest, **options):
        found = []
        for address in known.get(host, [host]):
            found += real(address, port, *rest, **options)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known.update


@pytest.mark.parametrize("flags", [[], ["--kubelet-tls-pin"], ["--kubelet-scheme=http"]])
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"])
async def test_a_name_that_resolves_to_loopback(cluster, away, resolved, flags, address):
    """The address is checked at the connection, so no earlier DNS answer counts."""
    resolved({"evil.example": [address]})
    async with Listener() as listener:
        place(cluster, "node-a", listener.port, "evil.example", "Hostname")
        clients = await away(*flags)
        with pytest.raises(UpstreamError, match="connect to evil") as raised:
            await scrape(clients)
        assert raised.value.reason == "bad_address"
        assert listener.connected == 0


async def test_a_name_that_resolves_to_several(cluster, resolved, away, own_address):
    """Refused addresses are skipped, the others are tried."""
    resolved({"both.example": ["127.0.0.1", own_address]})
    async with Listener("0.0.0.0") as listener:
        place(cluster, "node-a", listener.port, "both.example", "Hostname")
        clients = await away()
        with pytest.raises(UpstreamError) as raised:
            await scrape(clients)
        assert raised.value.reason != "bad_address"
        await asyncio.sleep(0)
        assert listener.connected == 1


@pytest.fixture
def own_address():
    """An address of this machine other than loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]


@pytest.mark.parametrize("named", [False, True])
async def test_the_api_servers_own_place(cluster, opened_here, resolved, named):
    """A node may have the API server's host, but not its host and port, by address or name."""
    resolved({"api.example": ["127.0.0.1"]})
    host = "api.example" if named else "127.0.0.1"
    server = urlsplit(cluster.api.url)
    kubelet = cluster.kubelets["node-a"]
    place(cluster, "node-a", server.port, host)
    place(cluster, "node-b", kubelet.port, "127.0.0.1")
    asked = len(cluster.api.requests)
    async with opened_here("--kubelet-tls-pin") as clients:
        with pytest.raises(UpstreamError, match="the API server has this address") as raised:
            await scrape(clients)
        assert raised.value.reason == "bad_address"
        assert [each.path for each in cluster.api.requests[asked:]] == ["/api/v1/nodes/node-a"]
        assert await scrape(clients, "node-b")


@pytest.fixture
def opened_here(cluster, tmp_path, clock, own_metrics):
    """A function that opens clients of the API server on loopback."""
    cluster.write_service_account(tmp_path)
    server = urlsplit(cluster.api.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": server.hostname,
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }

    def open_them(*flags):
        flags = (f"--service-account-dir={tmp_path}", "--all-nodes", *flags)
        config, _ = read_config(list(flags))
        return open_clients(config, environment, clock=clock, metrics=own_metrics)

    return open_them


async def test_an_api_server_by_name(cluster, away, resolved, own_address, tmp_path):
    """The addresses of the API server's name are compared with the target of the connection."""
    path = tmp_path / "config"
    document = json.loads(path.read_text())
    settings = document["clusters"][0]["cluster"]
    port = urlsplit(settings["server"]).port
    settings["server"] = f"https://api.example:{port}"
    path.write_text(json.dumps(document))
    resolved({"api.example": ["127.0.0.1"]})
    place(cluster, "node-a", port, own_address)
    clients = await away()
    await clients.nodes.find("node-a")
    # From now on the name means the address that the node names.
    resolved({"api.example": [own_address]})
    for session in (clients.kubelet._upstream._nodes, clients.kubelet._upstream._session):
        session.connector.clear_dns_cache()
    with pytest.raises(UpstreamError, match="the API server has this address"):
        await scrape(clients)


@pytest.mark.parametrize("verified", [False, True])
async def test_another_host(cluster, away, own_address, verified):
    """Every port of another host needs a certificate that verifies for the host."""
    sent = bytearray()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca = cluster._authorities if verified else trustme.CA()
    ca.issue_cert(own_address).configure_cert(context)

    async def serve(reader, writer):
        try:
            sent.extend(await reader.readuntil(b"\r\n\r\n"))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
            writer.write(head + b"m 1\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, own_address, 0, ssl=context)
    place(cluster, "node-a", server.sockets[0].getsockname()[1], own_address)
    clients = await away()
    try:
        if verified:
            assert await scrape(clients) == b"m 1\n"
            assert b"Authorization: Bearer" in sent
        else:
            with pytest.raises(UpstreamError, match="does not verify"):
                await scrape(clients)
            assert sent == b""
    finally:
        server.close()


@pytest.mark.parametrize("host", ["10.0.0.1/api/v1/secrets#", "a@10.0.0.1", "", "10.0.0.1:1"])
async def test_an_address_that_would_be_a_path(cluster, opened_here, host):
    """A Node object cannot change the request: no request is sent."""
    place(cluster, "node-a", cluster.kubelets["node-a"].port, host)
    async with opened_here() as clients:
        with pytest.raises(UpstreamError) as raised:
            await scrape(clients)
        assert raised.value.reason in {"bad_address", "no_address"}


async def test_through_the_api_server(cluster, away):
    """With the node proxy the API server connects to nodes, so addresses are not checked."""
    place(cluster, "node-a", cluster.kubelets["node-a"].port, "127.0.0.1")
    clients = await away(f"--kube-apiserver={cluster.api.url}")
    assert (await clients.nodes.find("node-a")).host == "127.0.0.1"


async def test_the_configured_node_is_ours_to_choose(cluster, away):
    """The address of --node-name-or-ip comes from the user: it may be loopback."""
    kubelet = cluster.kubelets["node-a"]
    clients = await away("--node-name-or-ip=127.0.0.1", f"--node-port={kubelet.port}")
    async with clients.kubelet.fetch(clients.kubelet.configured, "/metrics") as exposition:
        assert exposition.content_type.startswith("text/plain")
