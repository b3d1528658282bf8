"""Kubeconfigs given to kubectl and to us: who asks is the same, or we do not ask."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl

import pytest
import trustme

from kmproxy.cli.read import read_config
from kmproxy.daemon.clients import open_clients
from kmproxy.errors import ConfigError
from tests.support.sites import pem_of

V1 = "client.authentication.k8s.io/v1"
ASKED = ("authorization", "impersonate")


class Server:
    """An API server on TLS that notes who asks: headers of identity, and the certificate's name."""

    def __init__(self, ca):
        self.ca, self.seen, self._writers = ca, [], []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.configure_trust(self._context)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        ca.issue_cert("127.0.0.1", "localhost").configure_cert(self._context)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        except (asyncio.IncompleteReadError, OSError):
            return
        headers = [tuple(line.split(": ", 1)) for line in head if line]
        peer = writer.get_extra_info("peercert") or {}
        names = [v for part in peer.get("subject", ()) for k, v in part if k == "commonName"]
        who = [(k.lower(), v) for k, v in headers if k.lower().startswith(ASKED)]
        self.seen.append((sorted(who), names))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()


@pytest.fixture
async def server():
    """A server with a CA of its own."""
    async with Server(trustme.CA()) as opened:
        yield opened


def document(server, user, cluster=None, **other):
    """A kubeconfig of a server."""
    ca = base64.b64encode(server.ca.cert_pem.bytes()).decode()
    cluster = {"server": server.url, "certificate-authority-data": ca} | (cluster or {})
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    } | other


def exec_user(status):
    """A user whose plugin prints this."""
    text = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})
    plugin = {"apiVersion": V1, "command": "echo", "args": [text], "interactiveMode": "Never"}
    return {"exec": plugin}


def cases(server, folder):
    """Kubeconfigs by name, and whether kubectl takes them."""
    cert, key = (part.decode() for part in pem_of(server.ca.issue_cert(common_name="me")))
    (folder / "token").write_text("of-a-file\n")
    (folder / "plug").write_text(
        f'#!/bin/sh\necho \'{{"apiVersion":"{V1}","kind":"ExecCredential",'
        '"status":{"token":"relative"}}\'\n'
    )
    (folder / "plug").chmod(0o755)
    pair = {
        "client-certificate-data": base64.b64encode(cert.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    both = {"token": "plugged", "clientCertificateData": cert, "clientKeyData": key}
    doubled = {"as-groups": ["a", "b"], "as-uid": "1", "as-user-extra": {"e/F": ["x", "z"]}}
    token = {"token": "t"}

    def of(user, cluster=None, **other):
        return json.dumps(document(server, user, cluster, **other))

    unnamed = [{"context": {"cluster": "c", "user": "u"}}]
    typo = [{"name": "c", "context": {"cluster": "c", "user": "typo"}}]
    return {
        "token": (of(token), True),
        "as": (of(token | {"as": "jane"} | doubled), True),
        "as is empty": (of(token | {"as": "", "as-groups": []}), True),
        "groups alone": (of(token | doubled), False),
        "a file wins": (of(token | {"tokenFile": "token"}), True),
        "a file that is not there": (of(token | {"tokenFile": "no"}), True),
        "empty token": (of({"token": "", "tokenFile": "token"}), True),
        "login": (of({"username": "u", "password": "p:q"}), True),
        "user name alone": (of({"username": "u"}), True),
        "token and login": (of(token | {"username": "u", "password": "p"}), False),
        "certificate and token": (of(pair | token), True),
        "a key is missing": (
            of(token | {"client-certificate-data": pair["client-key-data"]}),
            False,
        ),
        "a certificate is missing": (of(token | {"client-key": "no"}), True),
        "exec": (of(exec_user({"token": "x", "expirationTimestamp": None})), True),
        "exec gives both": (of(exec_user(both)), True),
        "exec beside a token": (of(token | exec_user({"token": "x"})), True),
        "exec beside a certificate": (of(pair | exec_user({"token": "x"})), True),
        "exec of the folder": (of({"exec": exec_user({})["exec"] | {"command": "./plug"}}), True),
        "exec gives nothing": (of(exec_user({})), False),
        "gcp": (of(token | {"auth-provider": {"name": "gcp"}}), False),
        "unknown provider": (of(token | {"auth-provider": {"name": "x"}}), False),
        "CA and none": (of(token, {"insecure-skip-tls-verify": True}), False),
        "capitals": (of(token, {"server": server.url.replace("https", "HTTPS")}), True),
        "a slash": (of(token, {"server": server.url + "/"}), True),
        "nulls": (of(token | {"as": None, "exec": None}, {"proxy-url": None}, kind=None), True),
        "no context's name": (of(token, **{"current-context": ""}, contexts=unnamed), True),
        "another context": (of(token, **{"current-context": "typo"}), False),
        "another user": (of(token, contexts=typo), None),
        "twice": (of(token, users=[{"name": "u", "user": token}] * 2), False),
        "a number": (of({"token": 5}), False),
        "kind": (of(token, kind="Pod"), False),
        "version": (of(token, apiVersion="v2"), False),
        "keys in capitals": (of(token, Users=[{"name": "u", "user": {"token": "no"}}]), True),
        "two documents": (f"{of(token)}\n---\n{of({'token': 'other'})}", True),
        "tabs": (json.dumps(document(server, token), indent="\t"), True),
        "a date": (of(token).replace('"t"', "2020-01-01"), True),
        "base 60": (of(token).replace('"t"', "12:30"), True),
        "a mark": ("\ufeff" + of(token), True),
        "a key twice": (of(token).replace('"token": "t"', '"token": "no", "token": "t"'), True),
    }


async def asked_by_us(path, clock, own_metrics, environment):
    """Ask as the daemon does: whether the kubeconfig is taken, and why not."""
    flags = [f"--kubeconfig={path}"] if path else []
    config, _ = read_config([*flags, "--kubelet-scheme=http"])
    try:
        async with open_clients(config, environment, clock=clock, metrics=own_metrics) as clients:
            await clients.api.get("/api", {}, accept="*/*")
    except ConfigError as error:
        return False, str(error)
    return True, ""


async def kubectl(*flags, environment):
    """Its exit status, and what it says, of a request as the kubeconfig has it."""
    process = await asyncio.create_subprocess_exec(
        *("kubectl", *flags, "get", "--raw", "/api"),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.program("kubectl")
async def test_as_kubectl(server, tmp_path, clock, own_metrics):
    """What kubectl takes we take, asking as the same; what it refuses we refuse."""
    wrong = []
    for name, (text, taken) in cases(server, tmp_path).items():
        path = tmp_path / "config"
        path.write_text(text)
        server.seen.clear()
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        status, out = await kubectl(f"--kubeconfig={path}", environment=environment)
        theirs = server.seen[:1]
        if taken is not None and (status == 0) != taken:
            wrong.append(f"{name}: kubectl: {status} {out}")
        server.seen.clear()
        ours, why = await asked_by_us(path, clock, own_metrics, environment)
        if ours != bool(taken) or (ours and server.seen[:1] != theirs):
            wrong.append(f"{name}: {ours} {server.seen[:1]}, by kubectl {theirs}")
        if "Error" in why or "Exception" in why:
            wrong.append(f"{name}: {why}")
    assert wrong == []


@pytest.mark.program("kubectl")
async def test_several_as_kubectl(server, tmp_path, clock, own_metrics):
    """$KUBECONFIG's missing and empty files are skipped; the first that has an entry keeps it."""
    (tmp_path / "empty").touch()
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "token").write_text("relative")
    users = [{"name": "u", "user": {"tokenFile": "token"}}]
    (tmp_path / "users" / "config").write_text(json.dumps({"users": users}))
    (tmp_path / "whole").write_text(json.dumps(document(server, {"token": "no"})))
    files = [tmp_path / name for name in ("none", "empty", "users/config", "whole", "whole")]
    listed = ":".join(["", *map(str, files)])
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": listed}
    expected = ([("authorization", "Bearer relative")], [])
    status, out = await kubectl(environment=environment)
    assert (status, server.seen[0]) == (0, expected), out
    server.seen.clear()
    assert await asked_by_us(None, clock, own_metrics, environment) == (True, "")
    assert server.seen == [expected]
