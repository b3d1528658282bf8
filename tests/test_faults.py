"""What can fail, what the daemon does then, what shows it, and which test proves it.

| what happens | what the daemon does | shown by | proven by |
|---|---|---|---|
| API server down at the start | not ready, 503; exit 1 past `--cache-sync-timeout`, or the labels of the snapshot | `kmproxy_upstream_errors_total`, `kmproxy_labels_restored` | `test_app::test_an_api_server_that_is_not_there`, `test_snapshot::test_a_restart_while_the_api_server_is_away` |
| API server away later | serves the last labels, stays ready, asks again with full jitter, within 8 s if it is not reached | `kmproxy_namespaces_sync_age_seconds` | `test_faults::test_an_api_server_that_is_away` |
| API server away later, with `--all-nodes` | asks a node at its last known address, for an hour at most | `kmproxy_upstream_errors_total` | `test_faults::test_all_nodes_while_the_api_server_is_away`, `test_nodes::test_an_api_server_that_hangs` |
| one replica's way to the API server is cut, with `--max-label-age` and `--peers` | not ready while another replica has newer labels, and serves who comes all the same | `kmproxy_namespaces_sync_age_seconds` | `test_peers::test_old_labels_beside_new_ones`, `test_peers::test_nobody_has_new_ones` |
| API server away for longer than a kubelet remembers its review of our token (2 minutes) | 502 that says since when the API server is away, nothing of credentials; as before when it is back | `kmproxy_upstream_errors_total`, `kmproxy_namespaces_sync_age_seconds` | `test_faults::test_a_kubelet_that_cannot_review_a_token`, `test_faults::test_a_kubelet_that_cannot_review_a_right` |
| API server slow or silent | a list is given up after 60 s, a watch after 80 s without a byte | `kmproxy_watch_restarts_total` | `test_apiserver::test_a_list_that_falls_silent`, `test_namespaces::test_a_watch_that_falls_silent`, `test_snapshot::test_an_api_server_that_hangs` |
| API server slow to tell of a node, with `--all-nodes` | 504 that says so, when the scrape's time is up | `kmproxy_upstream_errors_total` | `test_server::test_an_api_server_that_does_not_tell_of_a_node` |
| API server: 401 after a rotation | reads the token anew, once, at once; a kubeconfig's plugin runs once for all who were refused | `kmproxy_upstream_errors_total` | `test_end_to_end::test_a_rotated_token_is_read_after_a_401`, `test_clients::test_a_plugin_that_gives_certificates`, `test_kubeconfig::test_several_who_were_refused` |
| API server: 403 | says which rule is missing, keeps asking | `kmproxy_upstream_errors_total` | `test_app::test_an_api_server_that_refuses` |
| API server: 410, as a status or an event | lists anew from etcd, at once if the API server was away before | `kmproxy_watch_restarts_total` | `test_namespaces::test_an_expired_version`, `test_namespaces::test_an_expired_version_after_an_outage`, `test_faults::test_an_outage_that_outlasts_the_history`, `test_watch::test_an_error_event_is_as_the_same_status` |
| API server: 429 | waits as long as it says, and watches on | `kmproxy_watch_restarts_total` | `test_namespaces::test_retry_after_is_kept_to` |
| API server: 500, garbage, a cut, an end at once | tries again, after a while from a list | `kmproxy_watch_restarts_total` | `test_namespaces::test_watches_that_fail`, `test_watch::test_patience_ends`, `test_namespaces::test_an_event_that_never_comes_whole` |
| API server: chunks framed wrongly in mid-answer | gives the answer up within a second, and tries again | `kmproxy_upstream_errors_total` | `test_namespaces::test_an_answer_that_is_framed_wrongly` |
| API server restored from a backup | our version is too large: lists what there is now; if it is only silent about it, after two silent watches | `kmproxy_watch_restarts_total` | `test_namespaces::test_a_restored_backup`, `test_namespaces::test_a_restored_backup_without_a_sign` |
| kubelet down, or its name unknown | 502 | `kmproxy_upstream_errors_total` | `test_end_to_end::test_a_kubelet_that_is_not_there` |
| kubelet slow, or hung before or in the body | 504, or breaks the connection, when the scrape's time is up | `kmproxy_upstream_errors_total` | `test_server::test_a_kubelet_that_hangs`, `test_server::test_a_slow_kubelet` |
| all slots taken | 503 when the scrape's time is up, before the scraper gives up | `kmproxy_scrapes_in_flight` | `test_server::test_no_free_slot`, `test_server::test_no_free_slot_is_said_in_time` |
| kubelet: 401, 403, 404, 500, redirect | 502, saying which rule or flag | `kmproxy_upstream_errors_total` | `test_server::test_a_kubelet_that_fails_before_the_first_byte` |
| kubelet: protobuf, HTML, no type, no framing, or one of another kind | 502 | `kmproxy_upstream_errors_total` | `test_server::test_a_kubelet_that_fails_before_the_first_byte`, `test_server::test_an_odd_frame_or_coding` |
| kubelet: wrong certificate | 502, saying which flag accepts it | `kmproxy_upstream_errors_total` | `test_end_to_end::test_the_kubelet_certificate` |
| kubelet: another certificate than the pinned one | 502, saying what to do; nothing is sent to it | `kmproxy_kubelet_certificates_refused_total` | `test_pinning::test_the_first_certificate_is_pinned` |
| the file of pins: damaged, of others, on a full or hanging disk | the pins in memory hold, each kubelet's next certificate is its first after a start | `kmproxy_kubelet_pin_errors_total` | `test_pinning::test_a_file_that_is_not_believed`, `test_pinning::test_a_disk_that_hangs` |
| a Node object names an address that no kubelet can have | 502, no connection | `kmproxy_upstream_errors_total` | `test_addresses::test_a_node_on_loopback`, `test_addresses::test_a_name_that_resolves_to_loopback` |
| kubelet: expired certificate | 502, saying so | `kmproxy_upstream_errors_total` | `test_faults::test_an_expired_certificate` |
| kubelet: empty answer | 200 of nothing, which is what it said | `kmproxy_scrapes_total` | `test_server::test_an_empty_exposition` |
| kubelet: cut (chunks, length, gzip, framing, kept-alive connection) | breaks the connection by a reset, or 502 before the first byte; a dead kept-alive connection is opened anew | `kmproxy_scrapes_total` | `test_server::test_a_body_that_is_cut`, `test_server::test_a_chunk_that_is_none`, `test_server::test_a_dead_connection_is_not_an_error` |
| kubelet: says something unasked on a kept-alive connection | opens a new one | `kmproxy_scrapes_total` | `test_upstream::test_what_nobody_asked_for` |
| kubelet: a gzip bomb | breaks the connection at `--max-response-bytes` or when the scrape's time is up, and serves others meanwhile | `kmproxy_upstream_errors_total` | `test_server::test_a_bomb`, `test_server::test_a_bomb_that_costs_time`, `test_server::test_others_are_served_during_a_bomb` |
| client slow | breaks the connection when its time is up, or it has kept its slot waiting for 5 s | `kmproxy_scrapes_total`, `kmproxy_refused_total` | `test_faults::test_a_client_that_does_not_read`, `test_slots::test_five_slow_readers_and_a_good_one` |
| client gone | gives the upstream, or its place in the queue, up at once | `kmproxy_scrapes_total` | `test_server::test_a_client_that_leaves_frees_its_slot`, `test_server::test_a_client_that_leaves_while_it_waits`, `test_listener::test_a_client_that_leaves_with_more_on_its_way` |
| a thousand clients at once | serves them in turn, 503 to whom the time runs out, closes those over `--max-connections` | `kmproxy_scrapes_in_flight`, `kmproxy_refused_total` | `test_faults::test_a_thousand_clients` |
| disk full for the snapshot | keeps the last whole one, scrapes go on | `kmproxy_snapshot_errors_total` | `test_snapshot::test_a_full_disk` |
| the snapshot's disk hangs | one thread waits for it, scrapes go on, SIGTERM ends the process | `kmproxy_snapshot_saved_timestamp_seconds` | `test_snapshot::test_a_disk_that_hangs`, `test_snapshot::test_sigterm_while_the_disk_hangs` |
| the clock jumps | nothing: time is measured by a clock that does not | `kmproxy_namespaces_sync_age_seconds` | `test_faults::test_only_the_snapshot_knows_what_time_it_is`, `test_snapshot::test_a_clock_that_went_back` |
| descriptors exhausted | 502, or no connection, until there are some again | `kmproxy_upstream_errors_total` | `test_faults::test_no_descriptors`, `test_faults::test_no_descriptor_for_a_client` |
| SIGTERM in mid-scrape | not ready, no new connections; what is under way is answered whole, or reset if it has no end in 24 s | `kmproxy_scrapes_total` | `test_end_to_end::test_sigterm_finishes_what_is_under_way`, `test_listener::test_an_answer_that_is_fetched_while_the_process_ends`, `test_listener::test_an_answer_that_has_no_end_when_the_process_ends` |
| a namespace is deleted while its pods report | its labels stay for 5 minutes | `kmproxy_namespaces` | `test_end_to_end::test_a_deleted_namespace_keeps_its_labels` |
| a bad new token, CA or certificate | the last good one stays in use | `kmproxy_credential_errors_total` | `test_credentials::test_a_bad_new_token_keeps_the_last_good_one`, `test_tls::test_a_bad_new_ca_keeps_the_last_good_one` |
| a kubeconfig that leads to another cluster | lists its namespaces anew, within a minute of the first request that goes there | `kmproxy_watch_restarts_total` | `test_namespaces::test_a_kubeconfig_that_leads_to_another_cluster` |
| a kubeconfig's plugin hangs | kills it after 30 s: exit 2 at the start, later the last good credential stays in use | `kmproxy_credential_errors_total` | `test_kubeconfig::test_a_plugin_that_hangs`, `test_kubeconfig::test_a_plugin_that_hangs_at_the_start` |
"""

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

from kmproxy.nodes import KEPT, REMEMBERED
from kmproxy.simkubelet import Fault, Memory
from kmproxy.telemetry import Telemetry

from .conftest import until
from .test_end_to_end import daemon, in_a_pod

ROOT = Path(__file__).parents[1]
TABLE = [line for line in __doc__.splitlines() if line.startswith("|")]


def test_the_table_is_the_readmes():
    """The README shows this table, line for line."""
    assert "\n".join(TABLE) in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("row", TABLE[2:])
def test_a_row_of_the_table(row):
    """Each metric is one of ours, and each test is there."""
    *_, shown, proven, _ = (cell.strip() for cell in row.split("|"))
    metrics = set(re.findall(r"`(kmproxy_\w+)`", shown))
    ours = re.findall(r"^# TYPE (kmproxy_\w+) ", Telemetry().render().decode(), re.MULTILINE)
    assert metrics
    assert metrics <= set(ours)
    names = re.findall(r"`(\w+)::(\w+)`", proven)
    assert names
    for module, name in names:
        assert re.search(
            rf"^(?:async )?def {name}\(",
            (ROOT / "tests" / f"{module}.py").read_text("utf-8"),
            re.MULTILINE,
        )


async def test_an_api_server_that_is_away(front, cluster, clock):
    """Scrapes go on with the last labels, ready; age, trouble and metric tell of it."""
    proxy = await front(clock=clock)
    assert (await proxy.get())[0] == 200  # the kubelet remembers us from here on
    await cluster.api.stop()

    async def told():
        _, page = await proxy.get("/")
        return "cannot be reached" in page or "closed the connection" in page

    await until(told)
    clock.now += 50.0
    assert "<th>Confirmed by the API server<td>50 s ago" in (await proxy.get("/"))[1]
    status, text = await proxy.get()
    assert status == 200
    assert 'namespace="payments",team="payments"' in text
    assert await proxy.probe("/readyz") == (200, "ok\n")
    assert await proxy.metric("kmproxy_namespaces_sync_age_seconds") == 50.0
    assert await proxy.metric("kmproxy_upstream_errors_total", upstream="apiserver") > 0


async def gone(proxy, cluster):
    """Stop the API server, and wait until the daemon knows it."""
    await cluster.api.stop()
    await until(lambda: settled(proxy.daemon._watcher.away))


async def settled(condition):
    """A condition that is known at once."""
    return condition


async def test_an_outage_that_outlasts_the_history(cluster, tmp_path):
    """A process shows what changed meanwhile: it probes, is answered by 410, and lists at once."""
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
    """It serves while it remembers us; then its 401 is told as what it is, until it is no more."""
    kubelet = cluster.kubelets["node-a"]
    kubelet.users.clock = clock
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
        "(401): it remembers a review for 2 minutes\n"
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
    assert "does not accept our credentials (401)" in text


async def test_a_kubelet_that_cannot_review_a_right(front, cluster, clock):
    """A 500 of its authorizer says so, with the outage or without; one of its own does not."""
    kubelet = cluster.kubelets["node-a"]
    proxy = await front("--discovery", clock=clock)
    assert (await proxy.get())[0] == 200  # it knows the token, and nothing of the right to pods
    await gone(proxy, cluster)
    clock.now += 30.0
    status, text = await proxy.get("/sd/pods")
    assert status == 502
    assert "has been away for 30 s, and the kubelet cannot review what kmproxy may do" in text
    kubelet.rights = Memory(0.0)
    status, text = await proxy.get()
    assert status == 502
    assert "has been away for 30 s, and the kubelet cannot review what kmproxy may do" in text
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
    """Each node that is known is scraped where it was, for an hour; one that is not is 502."""
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
    """It is refused, and said to be expired."""
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
    """It costs its slot until its own time is up, and then its connection is reset."""
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


async def ends_in_a_reset(client):
    """Read all there is; tell whether it ends as something whole never does."""
    try:
        while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


@pytest.fixture
def descriptors():
    """As many as the two ends of thousands of connections need."""
    needed = 4096
    before = soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < needed:  # less than 0 is no limit
        pytest.skip(f"no more than {most} files can be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("flags", "closed"), [([], True), (["--max-connections=2000"], False)])
async def test_a_thousand_clients(front, descriptors, flags, closed):
    """Each of a thousand at once is served whole, or told 503 or 504, or closed if too many."""
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
    """The daemon measures by the monotonic clock; wall time is passed in where a file needs it.

    But for a kubeconfig: a credential's end is a moment. After a jump of the clock it is renewed
    too early, at most every 10 s, or when it is refused.
    """
    telling = set()
    for path in (ROOT / "kmproxy").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}:
                    telling.add(path.stem)
    allowed = {"app", "check", "kubeconfig"}
    assert {each for each in telling if not each.startswith(("sim", "bench"))} <= allowed


def free_descriptor(pid):
    """The number that the next file has which a process opens: as a limit it lets none be opened."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


async def test_no_descriptors(cluster, tmp_path):
    """With none left a scrape fails; once there are some again it is as before."""
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
    """Who is connected is served meanwhile; who is not waits until there is one again."""
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
