"""Failures: checks the table of docs/operations.md, and tests some of its rows."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import re
import resource
import select
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.kube.nodes import KEPT, REMEMBERED
from kmproxy.simulator.kubelet import Fault
from kmproxy.simulator.kubelet_access import Memory
from kmproxy.telemetry import render
from tests.conftest import until
from tests.support.documents import ROOT, is_a_test, section
from tests.support.process import daemon, in_a_pod
from tests.support.resets import ends_in_a_reset

TABLE = re.findall(r"^\|.*$", section("docs/operations.md", "When things fail"), re.MULTILINE)


def test_the_table_is_there():
    """The fault table has its head, and enough rows that none is lost."""
    assert TABLE[0] == "| what happens | what the daemon does | shown by | proven by |"
    assert len(TABLE) > 40


@pytest.mark.parametrize("row", TABLE[2:])
def test_a_row_of_the_table(row):
    """Each metric of a row exists, and each test of a row exists."""
    *_, shown, proven, _ = (cell.strip() for cell in row.split("|"))
    metrics = set(re.findall(r"`(kmproxy_\w+)`", shown))
    ours = re.findall(
        r"^# TYPE (kmproxy_\w+) ", render(OwnMetrics().registry).decode(), re.MULTILINE
    )
    assert metrics
    assert metrics <= set(ours)
    names = re.findall(r"`(\w+)::(\w+)`", proven)
    assert names
    for module, name in names:
        assert is_a_test(module, name), name


async def test_an_api_server_that_is_away(front, cluster, clock):
    """Scrapes continue with the last labels, ready. Age, status and metric show the outage."""
    proxy = await front(clock=clock)
    assert (await proxy.get())[0] == 200  # the kubelet remembers us from here on
    await cluster.api.stop()

    async def told():
        _, page = await proxy.get("/")
        return "cannot be reached" in page or "closed the connection" in page

    await until(told)
    clock.now += 50.0
    assert "Confirmed by the API server</dt><dd>50 s ago</dd>" in (await proxy.get("/"))[1]
    status, text = await proxy.get()
    assert status == 200
    assert 'namespace="payments",team="payments"' in text
    assert await proxy.probe("/readyz") == (200, "ok\n")
    assert await proxy.metric("kmproxy_namespaces_sync_age_seconds") == 50.0
    assert await proxy.metric("kmproxy_upstream_errors_total", upstream="apiserver") > 0


async def gone(proxy, cluster):
    """Stop the API server, and wait until the daemon notices it."""
    await cluster.api.stop()
    await until(lambda: settled(proxy.daemon._watcher.away))


async def settled(condition):
    """Wraps a plain value as a condition for `until`."""
    return condition


async def test_an_outage_that_outlasts_the_history(cluster, tmp_path):
    """After an outage the daemon probes, gets 410, and lists at once. It shows the new labels."""
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    async with daemon(environment, flags) as (_, ports), aiohttp.ClientSession() as session:

        async def shows(team):
            async with session.get(f"http://127.0.0.1:{ports[0]}/metrics/cadvisor") as response:
                return f'namespace="payments",team="{team}"' in await response.text()

        await until(lambda: shows("payments"))
        await cluster.api.stop()
        await asyncio.sleep(5.0)  # the delays grow to their bound
        cluster.api.namespaces.apply("payments", {"team": "later"})
        cluster.api.expire_history()
        assert await shows("payments")
        await cluster.api.start()
        await until(lambda: shows("later"))


async def test_a_kubelet_that_cannot_review_a_token(front, cluster, clock, caplog):
    """A kubelet serves while it remembers the review. Its later 401 is blamed on the outage."""
    kubelet = cluster.kubelets["node-a"]
    kubelet.access.users.clock = clock
    proxy = await front(clock=clock)
    assert (await proxy.get())[0] == 200
    await gone(proxy, cluster)
    clock.now += 119.0
    assert (await proxy.get())[0] == 200
    clock.now += 1.0
    status, text = await proxy.get()
    assert status == 502
    assert text == (
        "the API server has been away for 120 s, and the kubelet cannot review kmproxy's token "
        "(401): the kubelet remembers a review for 2 minutes\n"
    )
    assert text.strip() in caplog.text
    assert "credentials" not in caplog.text
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="unreviewed") == 1
    await cluster.api.start()
    await until(lambda: settled(proxy.daemon._watcher.trouble is None))
    assert (await proxy.get())[0] == 200
    cluster.rotate_token()
    status, text = await proxy.get()
    assert status == 502
    assert "does not accept kmproxy's credentials (401)" in text


async def test_a_kubelet_that_cannot_review_a_right(front, cluster, clock):
    """A 500 of the kubelet's authorizer is named as such. Another 500 is not."""
    kubelet = cluster.kubelets["node-a"]
    proxy = await front("--discovery", clock=clock)
    assert (await proxy.get())[0] == 200  # it knows the token, and nothing of the right to pods
    await gone(proxy, cluster)
    clock.now += 30.0
    status, text = await proxy.get("/sd/pods")
    assert status == 502
    assert "has been away for 30 s, and the kubelet cannot review kmproxy's rights" in text
    kubelet.access.rights = Memory(0.0)
    status, text = await proxy.get()
    assert status == 502
    assert "has been away for 30 s, and the kubelet cannot review kmproxy's rights" in text
    await cluster.api.start()
    await until(lambda: settled(proxy.daemon._watcher.trouble is None))
    body = b"Authorization error (user=u, verb=get, resource=nodes, subresource=metrics)"
    kubelet.fail(Fault.STATUS, body=body, times=1)
    status, text = await proxy.get()
    assert status == 502
    assert "its own request to the API server fails" in text
    assert "subresource" not in text
    kubelet.fail(Fault.STATUS, times=1)
    assert "answered with HTTP status 500" in (await proxy.get())[1]


async def test_all_nodes_while_the_api_server_is_away(front, cluster, clock):
    """A known node is scraped at its last address for an hour. An unknown node gets 502."""
    proxy = await front("--all-nodes", clock=clock)
    path = "/api/v1/nodes/{}/proxy/metrics/probes"
    assert (await proxy.get(path.format("node-b")))[0] == 200
    await cluster.api.stop()
    for seconds in (REMEMBERED, KEPT - REMEMBERED - 1):
        clock.now += seconds
        status, text = await proxy.get(path.format("node-b"))
        assert status == 200
        assert 'namespace="payments",team="payments"' in text
    assert (await proxy.get(path.format("node-a")))[0] == 502
    clock.now += 1
    status, text = await proxy.get(path.format("node-b"))
    assert status == 502
    assert "the API server" in text
    await cluster.api.start()
    assert (await proxy.get(path.format("node-b")))[0] == 200
    assert await proxy.metric("kmproxy_upstream_errors_total", upstream="apiserver") > 0


async def test_an_expired_certificate(front, tmp_path):
    """An expired kubelet certificate is refused, and the line says that it expired."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    leaf = authority.issue_cert(
        "127.0.0.1", not_before=before, not_after=before + dt.timedelta(days=1)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        proxy = await front(f"--node-port={port}", f"--kubelet-ca-file={tmp_path / 'ca.pem'}")
        status, text = await proxy.get()
    assert status == 502
    assert "certificate has expired" in text
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="tls") == 1


async def test_a_client_that_does_not_read(front, cluster):
    """A client that reads nothing holds its slot for its scrape time, then gets a reset."""
    body = b'm{namespace="payments"} 1\n' * 500_000
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    proxy = await front("--max-concurrency=1")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", proxy.daemon.metrics_port))
    with client:
        timeout = b"X-Prometheus-Scrape-Timeout-Seconds: 2\r\n"
        await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: x\r\n%b\r\n" % timeout)

        async def broken():
            return await proxy.metric("kmproxy_scrapes_total", code="broken") == 1

        await until(broken, 15)
        assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
        assert await proxy.metric("kmproxy_upstream_errors_total") == 0  # it is not the kubelet's
        poll = select.poll()
        poll.register(client, 0)

        async def reset():
            return poll.poll(0)

        await until(reset)  # it holds no descriptor until it reads
        assert await ends_in_a_reset(client)


@pytest.fixture
def descriptors():
    """Raises the limit of open files for thousands of connections with both ends."""
    needed = 4096
    before = soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < needed:  # less than 0 is no limit
        pytest.skip(f"no more than {most} files can be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("flags", "closed"), [([], True), (["--max-connections=2000"], False)])
async def test_a_thousand_clients(front, descriptors, flags, closed):
    """Each of 1000 concurrent clients gets a complete body, 503, 504, or a closed connection."""
    proxy = await front(*flags)
    connector = aiohttp.TCPConnector(limit=0)
    answers = []
    async with aiohttp.ClientSession(connector=connector) as session:

        async def scrape():
            try:
                async with session.get(proxy.url + "/metrics/probes") as response:
                    answers.append((response.status, await response.text()))
            except aiohttp.ClientError:
                answers.append((None, ""))

        await asyncio.gather(*(scrape() for _ in range(1000)))
    assert len(answers) == 1000
    assert {status for status, _ in answers} <= {200, 503, 504} | ({None} if closed else set())
    served = [text for status, text in answers if status == 200]
    assert served
    assert all(text.endswith("\n") and 'team="payments"' in text for text in served)
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    assert (await proxy.get())[0] == 200
    if closed:
        assert await proxy.metric("kmproxy_refused_total") > 0


def test_only_the_snapshot_knows_what_time_it_is():
    """The daemon measures by the monotonic clock. Only files and log lines with dates need wall time.

    A kubeconfig also needs it, because a credential ends at a date. After a jump of the clock
    a credential is renewed too early, at most every 10 s, or when it is refused.
    """
    telling, package = set(), ROOT / "kmproxy"
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}:
                    telling.add(path.relative_to(package).as_posix())
    found = {each for each in telling if not each.startswith(("simulator/", "bench/"))}
    assert found == {"daemon/daemon.py", "daemon/logs.py", "kube/kubeconfig.py"}


def free_descriptor(pid):
    """The number of the next file that a process would open. As a limit it prevents that."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


async def test_no_descriptors(cluster, tmp_path):
    """A scrape without a free descriptor fails. The next one, with free descriptors, succeeds."""
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    async with daemon(environment, flags) as (process, (port, _)):
        url = f"http://127.0.0.1:{port}/metrics/probes"
        _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        free = free_descriptor(process.pid)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free + 1, most))
        async with aiohttp.ClientSession() as session:  # its connection takes the last
            async with session.get(url) as response:
                assert response.status == 502
                assert "too many open files" in (await response.text()).lower()
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
            async with session.get(url) as response:
                assert response.status == 200
                assert 'team="payments"' in await response.text()


async def test_no_descriptor_for_a_client(cluster, tmp_path):
    """Connected clients are served meanwhile. New clients wait for a free descriptor."""
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    async with (
        daemon(environment, flags) as (process, (port, _)),
        asyncio.timeout(60),
        aiohttp.ClientSession() as session,
    ):

        async def scrape():
            async with session.get(f"http://127.0.0.1:{port}/metrics/probes") as response:
                return response.status, await response.read()

        assert (await scrape())[0] == 200
        _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        free = free_descriptor(process.pid)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, most))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics/probes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while b"cannot accept" not in (line := await process.stderr.readline()):
            assert line, "it has ended"
        assert (await scrape())[0] == 200
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
