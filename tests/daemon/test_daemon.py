"""The daemon as a process: its start, and its failures at the start."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
import yaml

from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from kmproxy.errors import StartupError
from kmproxy.simulator.cluster import SimCluster
from tests.conftest import until
from tests.support.sites import ForwardProxy

LOCAL = ["--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0"]


async def run(*flags, **environment):
    """Runs `kmproxy` to its end; returns exit status and standard error."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kmproxy",
        *flags,
        env={**bare, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert out == b""
    text = err.decode()
    assert "Traceback" not in text
    return process.returncode, text


def kubeconfig(path, server):
    """Writes a kubeconfig with a token and without a CA."""
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        f"clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n"
        "users: [{name: u, user: {token: planted-secret}}]\n"
    )
    return f"--kubeconfig={path}"


async def test_a_wrong_command_line(tmp_path):
    """Exit 2, one line for each problem, nothing else."""
    (tmp_path / "k.yaml").write_text("lable: team\ncache-sync-timeout: soon\n")
    status, text = await run(
        "--nonsense",
        "--node-port=99999",
        "--label=a=b",
        "--label=c=b",
        "--label=d=0",
        f"--config={tmp_path / 'k.yaml'}",
    )
    assert status == 2
    lines = text.splitlines()
    assert all(line.startswith("kmproxy: ") for line in lines)
    for words in (
        "unknown flag --nonsense",
        "--node-port: '99999' is not a port",
        "--label a=b already makes the label 'b'",
        "'0' is not a label name",
        "unknown key lable, did you mean label?",
        "cache-sync-timeout: 'soon' is not a duration",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 6


async def test_no_cluster_at_all(tmp_path):
    """Exit 2, with the places where an API server was looked for."""
    status, text = await run(*LOCAL, HOME=str(tmp_path))
    assert status == 2
    assert "no API server" in text
    assert str(tmp_path) in text


@pytest.mark.parametrize(
    "content", [None, "", "a: [", "just text", "[1]", "current-context: x\ncontexts: []\n"]
)
async def test_an_unreadable_kubeconfig(tmp_path, content):
    """Exit 2 with one line that names the file."""
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    status, text = await run(*LOCAL, f"--kubeconfig={path}")
    assert status == 2
    assert str(path) in text
    assert len(text.splitlines()) == 1


async def test_an_unreadable_kubelet_ca(tmp_path):
    """Exit 2, with flag and file, for a missing and an invalid file."""
    config = kubeconfig(tmp_path / "config", "https://127.0.0.1:1")
    (tmp_path / "ca").write_text("no certificate")
    for file in ("missing", "ca"):
        status, text = await run(*LOCAL, config, f"--kubelet-ca-file={tmp_path / file}")
        assert status == 2
        assert "--kubelet-ca-file" in text
        assert str(tmp_path / file) in text


@pytest.mark.parametrize("token", [None, b"", b"two words", b"\xff\xfe"])
async def test_an_unreadable_token(tmp_path, token):
    """Exit 1 with one line that names the file, and does not show it."""
    if token is not None:
        (tmp_path / "token").write_bytes(token)
    status, text = await run(
        *LOCAL, f"--service-account-dir={tmp_path}", KUBERNETES_SERVICE_HOST="127.0.0.1"
    )
    assert status == 1
    assert str(tmp_path / "token") in text
    assert "two words" not in text
    assert len(text.splitlines()) == 1


async def test_a_missing_cluster_ca(tmp_path):
    """Exit 1 with one line that names the file."""
    (tmp_path / "token").write_text("t")
    status, text = await run(
        *LOCAL, f"--service-account-dir={tmp_path}", KUBERNETES_SERVICE_HOST="127.0.0.1"
    )
    assert status == 1
    assert str(tmp_path / "ca.crt") in text


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("https://127.0.0.1:1", "connection refused"),
        ("https://no-such-api.invalid:443", "no-such-api.invalid is not known"),
        ("http://127.0.0.1:1", "connection refused"),
    ],
)
async def test_an_api_server_that_is_not_there(tmp_path, server, says):
    """Exit 1 after the time for the first load, with the reason and no credential."""
    config = kubeconfig(tmp_path / "config", server)
    status, text = await run(*LOCAL, config, "--cache-sync-timeout=2s")
    assert status == 1
    last = text.splitlines()[-1]
    assert last.startswith("kmproxy: namespaces not loaded within 2 s: ")
    assert says in last
    assert "planted-secret" not in text


@pytest.mark.parametrize(
    ("verb", "says"),
    [("list", "resources [namespaces] and verbs [list, watch]"), ("401", "credentials (401)")],
)
async def test_an_api_server_that_refuses(cluster, tmp_path, verb, says):
    """Exit 1 with the missing ClusterRole rule, or with the refused token."""
    cluster.write_service_account(tmp_path)
    if verb == "401":
        (tmp_path / "token").write_text("planted-secret")
    else:
        cluster.api.deny(verb, "namespaces")
    api = urlsplit(cluster.api.url)
    status, text = await run(
        *LOCAL,
        f"--service-account-dir={tmp_path}",
        "--cache-sync-timeout=2s",
        KUBERNETES_SERVICE_HOST=api.hostname,
        KUBERNETES_SERVICE_PORT=str(api.port),
    )
    assert status == 1
    assert says in text.splitlines()[-1]
    assert "planted-secret" not in text


async def test_an_api_server_of_another_ca(cluster, tmp_path):
    """Exit 1: its certificate does not verify."""
    cluster.write_service_account(tmp_path)
    async with SimCluster(nodes=()) as other:
        (tmp_path / "ca.crt").write_bytes(other.ca_pem)
    api = urlsplit(cluster.api.url)
    status, text = await run(
        *LOCAL,
        f"--service-account-dir={tmp_path}",
        "--cache-sync-timeout=2s",
        KUBERNETES_SERVICE_HOST=api.hostname,
        KUBERNETES_SERVICE_PORT=str(api.port),
    )
    assert status == 1
    assert "the API server's certificate does not verify" in text.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--listen", "--telemetry-listen"])
async def test_a_port_in_use(tmp_path, flag):
    """Exit 1 at once, with address and flag."""
    config = kubeconfig(tmp_path / "config", "https://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = await run(*LOCAL, f"{flag}=127.0.0.1:{port}", config)
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port} ({flag}): the address is in use" in text


@pytest.mark.parametrize("auth", ["token", "client-certificate", "exec"])
async def test_a_kubeconfig(cluster, tmp_path, auth):
    """A token, a client certificate and an exec plugin each work at both servers."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path, auth=auth)
    kubelet = cluster.kubelets["node-a"]
    config, _ = read_config(
        [
            *LOCAL,
            f"--kubeconfig={path}",
            f"--node-name-or-ip={kubelet.host}",
            f"--node-port={kubelet.port}",
        ]
    )
    daemon = Daemon(config, {})
    try:
        await daemon.start()

        async def answered():
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.metrics_port)
            writer.write(b"GET /metrics/probes HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer.startswith(b"HTTP/1.0 200") and b'team="payments"' in answer

        await until(answered)
    finally:
        await daemon.stop()


async def test_not_started():
    """Waiting for a daemon that was not started is a StartupError."""
    config, _ = read_config([])
    with pytest.raises(StartupError):
        await Daemon(config, {}).wait(asyncio.Event())


async def test_nothing_secret_is_shown(front, tmp_path, caplog):
    """No log line, error, page, metric or repr shows secrets of the `kubelet` section."""
    async with ForwardProxy() as forward:
        section = {
            "bearer_token": "planted-token",
            "proxy_url": forward.url.replace("://", "://planted-user:planted-password@"),
            "proxy_connect_header": {"X-A": "planted-header"},
            "http_headers": {"X-B": "planted-extra"},
        }
        (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": section}))
        with caplog.at_level(logging.DEBUG):
            served = await front(f"--config={tmp_path / 'k.yaml'}")
            status, text = await served.get()
            assert status == 502
            assert "does not accept kmproxy's credentials" in text
            shown = [text, (await served.get("/"))[1], (await served.probe("/metrics"))[1]]
            shown += [caplog.text, repr(served.daemon), repr(vars(served.daemon))]
        assert forward.asked
    assert "401" in caplog.text
    for each in shown:
        assert "planted" not in each
