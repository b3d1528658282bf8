"""Exec plugins as real programs: their input, their output, and their end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from datetime import datetime
from pathlib import Path

import pytest

from kmproxy.config.types import File, Secret
from kmproxy.errors import CredentialError
from kmproxy.kube.context_options import Cluster, ExecPlugin
from kmproxy.kube.exec_plugin import MAX_OUTPUT, run_plugin
from tests.conftest import until

V1, BETA = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
CLUSTER = Cluster("https://api:6443")


def plugin(program, *args, version=V1, env=(), cluster=False, config=None, command=None):
    """A plugin that runs a Python program, or another command."""
    args = ("-c", program, *args) if command is None else args
    variables = tuple((name, Secret(value)) for name, value in env)
    return ExecPlugin(
        command or sys.executable,
        args,
        variables,
        version,
        "see\n  \x1b[1mthe docs",
        cluster,
        config,
    )


def printing(status, *, version=V1, kind="ExecCredential"):
    """A program that prints this."""
    document = {"apiVersion": version, "kind": kind, "status": status}
    return f"print({json.dumps(json.dumps(document))})"


async def run(given, cluster=CLUSTER, environment=None):
    """Runs a plugin; returns its output."""
    return await run_plugin(given, cluster, os.environ if environment is None else environment)


@pytest.mark.parametrize("version", [V1, BETA])
@pytest.mark.parametrize("expiry", [None, "2030-01-01T00:00:00Z", "2030-01-01T01:00:00+01:00"])
async def test_a_token_and_a_certificate(version, expiry):
    """Both are read. An expiry of null is none, and an empty text counts as absent."""
    status = {"token": " t\n", "clientCertificateData": "c", "clientKeyData": "k"}
    status["expirationTimestamp"] = expiry
    found = await run(plugin(printing(status, version=version), version=version))
    assert (found.token, found.cert, found.key) == (Secret("t"), Secret("c"), Secret("k"))
    moment = datetime.fromisoformat("2030-01-01T00:00:00+00:00").timestamp()
    assert found.expires_at == (moment if expiry else None)
    empty = dict.fromkeys(("clientCertificateData", "clientKeyData", "expirationTimestamp"), "")
    found = await run(plugin(printing({"token": "t"} | empty)))
    assert (found.cert, found.key, found.expires_at) == (None, None, None)


TELLING = """
import json, os, sys
told = {"info": json.loads(os.environ["KUBERNETES_EXEC_INFO"]), "arguments": sys.argv[1:],
        "own": os.environ["OWN"], "path": os.environ["PATH"], "input": sys.stdin.read()}
open(os.environ["OUT"], "w").write(json.dumps(told))
print(json.dumps({"apiVersion": told["info"]["apiVersion"], "kind": "ExecCredential",
                  "status": {"token": "t"}}))
"""


@pytest.mark.parametrize("provide", [True, False])
async def test_what_it_is_told(tmp_path, provide):
    """It gets ours and its own environment, arguments, no input, and the cluster on request."""
    (tmp_path / "ca").write_bytes(b"pem")
    config = {"audience": "a", "nothing": None}
    env = (("OWN", "own"), ("OUT", str(tmp_path / "told")))
    given = plugin(TELLING, "one", "", version=BETA, env=env, cluster=provide, config=config)
    cluster = Cluster(
        "https://api:6443",
        "name",
        ca=File(str(tmp_path / "ca")),
        proxy_url=Secret("http://u:p@proxy"),
        disable_compression=True,
    )
    await run(given, cluster, {"PATH": os.environ["PATH"], "OWN": "ours"})
    told = json.loads((tmp_path / "told").read_text())
    spec = {"interactive": False}
    if provide:
        spec["cluster"] = {
            "server": "https://api:6443",
            "tls-server-name": "name",
            "certificate-authority-data": base64.b64encode(b"pem").decode(),
            "proxy-url": "http://u:p@proxy",
            "disable-compression": True,
            "config": config,
        }
    assert told["info"] == {"kind": "ExecCredential", "apiVersion": BETA, "spec": spec}
    assert told["arguments"] == ["one", ""]
    assert (told["own"], told["path"], told["input"]) == ("own", os.environ["PATH"], "")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('planted')", "the output is not an ExecCredential in JSON"),
        ("print('[' * 100000)", "the output is not an ExecCredential in JSON"),
        ("import os; os.write(1, b'\\xff')", "the output is not an ExecCredential in JSON"),
        ("pass", "the output is not an ExecCredential in JSON"),
        ("print('planted'); raise SystemExit(3)", "failed with exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "failed with exit status -9"),
        (printing({"token": "planted"}, version=BETA), f"not an ExecCredential of {V1}"),
        (printing({"token": "planted"}, kind="Planted"), f"not an ExecCredential of {V1}"),
        (printing(None), "neither a token nor a client certificate"),
        (printing({"token": ""}), "neither a token nor a client certificate"),
        (printing({"token": 5}), "the output is not an ExecCredential in JSON"),
        (printing({"clientKeyData": "planted"}), "only one of client certificate and key"),
        (printing({"token": "planted secret"}), "the output's token is not valid"),
        (
            printing({"token": "planted", "expirationTimestamp": "planted"}),
            "the expirationTimestamp is not a time",
        ),
        (f"print('x' * {MAX_OUTPUT + 1})", "the output is over 1,048,576 bytes"),
    ],
)
async def test_what_is_refused(program, said):
    """An error gives the reason, and never shows the output."""
    with pytest.raises(CredentialError, match="exec plugin: ") as raised:
        await run(plugin(program))
    assert said in str(raised.value)
    assert "planted" not in str(raised.value).lower()


async def test_a_command_that_is_not_there(tmp_path):
    """The error names the command, with its hint in one line and no terminal escapes."""
    (tmp_path / "file").write_text("#!/bin/sh\n")
    for command in ("no-such-plugin", str(tmp_path / "file"), str(tmp_path / "no")):
        with pytest.raises(CredentialError) as raised:
            await run(plugin("", command=command))
        assert f"the command {command!r} is not found or cannot be run" in str(raised.value)
        assert str(raised.value).endswith("see [1mthe docs")


async def test_a_command_of_the_path(tmp_path):
    """A command without a slash is looked up in kmproxy's PATH, as Go does."""
    (tmp_path / "plug").write_text(f"#!{sys.executable}\n{printing({'token': 't'})}\n")
    (tmp_path / "plug").chmod(0o755)
    found = await run(
        plugin("", command="plug", env=(("PATH", "/nowhere"),)),
        environment={"PATH": f"/nowhere:{tmp_path}"},
    )
    assert found.token == Secret("t")


async def test_nothing_is_left_running(tmp_path):
    """A cancelled run kills the plugin and its children. A child that outlives it is killed."""
    pids = tmp_path / "pids"
    program = f"""
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
with open({str(pids)!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}\\n")
time.sleep(600)
"""
    running = asyncio.create_task(run(plugin(program)))

    async def started():
        return pids.exists() and pids.read_text().endswith("\n")

    await until(started)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async def gone():
        return not any(alive(pid) for pid in pids.read_text().split())

    await until(gone)


def alive(pid):
    """Whether a process runs. A zombie does not."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
