"""No output shows a secret: planted secrets, every kind of failure, and all output."""

from __future__ import annotations

import base64
import gc
import logging

import bcrypt
import pytest
import yaml
from aiohttp import web

from kmproxy.cli.log import JsonFormatter, TextFormatter
from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from kmproxy.errors import KmproxyError
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.sites import ForwardProxy, Site, new_ca, pem_of
from tests.support.smuggling import SMUGGLING
from tests.support.tls import Authority, write_config

PASSWORD = "planted-password"
WRONG = "planted-wrong-password"
BEARER = "planted-bearer"
COOKIE = "planted-cookie"
BODY = "planted-upstream-body"
BROKEN = "planted-in-a-broken-file"


class Secrets:
    """Values that must stay hidden, and all output that could show them."""

    def __init__(self, caplog):
        caplog.set_level(logging.DEBUG)
        self.caplog = caplog
        self.hidden = {PASSWORD, WRONG, BEARER, COOKIE, BODY, BROKEN}
        self.shown = {}

    def hide(self, *secrets):
        """Adds secrets, each as it is and in base64."""
        for secret in secrets:
            self.hidden |= {secret, base64.b64encode(secret.encode()).decode().rstrip("=")}

    def show(self, where, text):
        """Adds output."""
        self.shown[where] = self.shown.get(where, "") + text

    def check(self, *, started=True):
        """Searches every output for every secret: logs in both formats, and every repr."""
        for formatter in (TextFormatter(), JsonFormatter()):
            for record in self.caplog.records:
                self.show(f"log of {record.name}", formatter.format(record))
        for thing in gc.get_objects():
            module = getattr(type(thing), "__module__", None)
            if not isinstance(module, str):
                continue  # the machinery of classes themselves
            if module.startswith("kmproxy.") and not module.startswith("kmproxy.simulator"):
                self.show(f"repr of {type(thing).__name__}", repr(thing))
        assert "repr of Daemon" in self.shown
        assert not started or "log of kmproxy.daemon" in self.shown
        for where, text in self.shown.items():
            for secret in self.hidden:
                assert secret not in text, where


@pytest.fixture
def secrets(caplog):
    """The planted secrets and the collected output."""
    return Secrets(caplog)


def basic(user, password):
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def look(secrets, proxy, **headers):
    """Requests every path, and collects all output."""
    for path in ("/", "/metrics/cadvisor", "/api/v1/nodes/node-b/proxy/metrics", "/x", "//metrics"):
        async with proxy.session.get(proxy.url + path, headers=headers) as response:
            try:
                text = await response.text()
            except OSError:
                text = ""
            secrets.show(f"answer of {path}", f"{response.headers} {text}")
    for path in ("/metrics", "/readyz", "/healthz", "/x"):
        secrets.show(f"telemetry {path}", (await proxy.probe(path))[1])


async def test_on_every_path_of_failure(front, cluster, tmp_path, secrets, monkeypatch):
    """No token, password, hash, key, client input or upstream body appears in any output."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    path = tmp_path / "web.yaml"
    users = {"basic_auth_users": {"alice": hashed}}
    write_config(path, users)
    secrets.hide(cluster.token, hashed, f"alice:{PASSWORD}", f"alice:{WRONG}")
    proxy = await front("--all-nodes", f"--web-config-file={path}")
    right = {"Authorization": basic("alice", PASSWORD), "Cookie": COOKIE}
    await look(secrets, proxy, **right)
    for header in (
        basic("alice", WRONG),
        basic(WRONG, "x"),
        f"Bearer {BEARER}",
        f"Basic {BEARER}",
        BEARER,
    ):
        await look(secrets, proxy, Authorization=header)
    # What is no HTTP, with secrets in it.
    for shape in SMUGGLING.values():
        planted = f"Cookie: {COOKIE}\r\nAuthorization: Bearer {BEARER}\0\r\n".encode()
        answer, _ = await proxy.raw(shape.replace(b"Host: x\r\n", b"Host: x\r\n" + planted, 1))
        secrets.show("answer to no HTTP", answer.decode("latin-1"))
    # Every fault of a kubelet, the API server's refusals, and faults of our own.
    for fault in set(Fault) - {Fault.BODY}:  # which is an answer
        for kubelet in cluster.kubelets.values():
            kubelet.fail(
                fault, body=BODY.encode(), location=f"http://127.0.0.1:1/{BODY}", size=1 << 20
            )
        await look(secrets, proxy, **right, **{"X-Prometheus-Scrape-Timeout-Seconds": "0.3"})
    for kubelet in cluster.kubelets.values():
        kubelet.recover()
    cluster.api.deny("get", "nodes")
    await look(secrets, proxy, **right)
    cluster.api.fail("get", ApiFault.STATUS, status=500)
    await look(secrets, proxy, **right)

    def broken(*_, **__):
        raise RuntimeError("a fault of our own")

    with monkeypatch.context() as patch:
        patch.setattr("kmproxy.scrape.handler.find_route", broken)
        await look(secrets, proxy, **right)
    assert "a fault of our own" in secrets.caplog.text
    # Files that have rotated badly, and then a token that is refused.
    path.write_text(f"basic_auth_users: [{BROKEN}\n")
    (tmp_path / "sa" / "token").write_text(f"{BROKEN} {BROKEN}")
    (tmp_path / "sa" / "ca.crt").write_text(BROKEN)
    cluster.rotate_token()

    async def told():
        await look(secrets, proxy, **right)
        return (
            "the file is not YAML" in secrets.caplog.text
            and "is not a valid token" in secrets.caplog.text
        )

    await until(told, 10)
    secrets.check()


async def test_over_tls(front, cluster, tmp_path, secrets):
    """A failed handshake shows no key, inline, in a file or damaged."""
    ours = Authority()
    ours.write_pair(tmp_path)
    key = (tmp_path / "tls.key").read_text()
    secrets.hide(cluster.token, *key.splitlines()[1:-1])
    section = {"cert": (tmp_path / "tls.crt").read_text(), "key": key}
    path = write_config(tmp_path / "web.yaml", {"tls_server_config": section})
    proxy = await front(f"--web-config-file={path}")
    for hello in (b"GET / HTTP/1.1\r\nAuthorization: Bearer planted-bearer\r\n\r\n", b"\x16\x03"):
        await proxy.raw(hello + bytes(600))
    write_config(path, {"tls_server_config": section | {"key": f"{BROKEN}\n{key[:200]}"}})

    async def told():
        await proxy.raw(b"x" * 99)
        return "are not a certificate and its key" in secrets.caplog.text

    await until(told)
    for path_ in ("/metrics", "/readyz"):
        secrets.show(f"telemetry {path_}", (await proxy.probe(path_))[1])
    secrets.check()


@pytest.mark.parametrize("which", ["header", "login", "certificate", "oauth2", "proxy"])
async def test_a_kubelet_section(front, cluster, tmp_path, secrets, capfd, which):
    """No failure on the route to a kubelet shows a secret of the `kubelet` section."""
    ca = new_ca()
    cert, key = (part.decode() for part in pem_of(ca.issue_cert("x")))
    pair = f"{PASSWORD}:{PASSWORD}"
    secrets.hide(pair, f"planted:{PASSWORD}", *key.splitlines()[1:-1])
    answers = [
        lambda: web.Response(status=500, text=BODY),
        lambda: web.json_response({"error": BODY}, status=400),
        lambda: web.Response(status=302, headers={"Location": f"https://{BODY}/"}),
        lambda: web.json_response({"access_token": f"{BODY}\n", "token_type": BODY}),
        lambda: web.Response(text=BODY, headers={"Set-Cookie": f"x={BODY}; expires={BODY}"}),
    ]
    async with Site(lambda seen: answers[int(seen.path[-1])](), ca) as site, ForwardProxy() as way:
        section = {
            "header": {"bearer_token": PASSWORD, "http_headers": {"Cookie": PASSWORD}},
            "login": {"basic_auth": {"username": PASSWORD, "password": PASSWORD}},
            "certificate": {
                "authorization": {"type": "X", "credentials": PASSWORD},
                "tls_config": {"cert": cert, "key": key},
            },
            "oauth2": {
                "oauth2": {
                    "client_id": "kmproxy",
                    "client_secret": PASSWORD,
                    "endpoint_params": {"a": PASSWORD},
                    "tls_config": {"ca": ca.cert_pem.bytes().decode()},
                }
            },
            "proxy": {
                "proxy_url": way.url.replace("://", f"://planted:{PASSWORD}@"),
                "proxy_connect_header": {"X-A": PASSWORD},
            },
        }[which]
        for number in range(len(answers) if which == "oauth2" else 1):
            if which == "oauth2":
                section["oauth2"]["token_url"] = f"{site.url}/{PASSWORD}?{PASSWORD}={number}"
            document = {"kubelet": section | {"follow_redirects": True}}
            (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
            proxy = await front("--all-nodes", f"--config={tmp_path / 'config.yaml'}")
            for fault in (Fault.STATUS, Fault.REDIRECT, Fault.DISCONNECT):
                for kubelet in cluster.kubelets.values():
                    location = f"https://127.0.0.1:1/{BODY}"
                    kubelet.fail(fault, status=401, body=BODY.encode(), location=location)
                await look(secrets, proxy)
            secrets.check()
            await proxy.daemon.stop()
    secrets.show("output", "".join(capfd.readouterr()))
    secrets.check()
    assert " 502: " in secrets.caplog.text


@pytest.mark.parametrize("auth", ["token", "client-certificate", "exec"])
async def test_a_kubeconfig(cluster, tmp_path, secrets, auth):
    """No output shows a kubeconfig's token or key, or the output of a plugin."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path, auth=auth)
    secrets.hide(cluster.token)
    flags = [f"--kubeconfig={path}", "--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0"]
    cluster.api.fail("list", ApiFault.STATUS, status=403)
    daemon = Daemon(read_config(flags)[0], {})
    try:
        await daemon.start()

        async def told():
            return "cannot list namespaces" in secrets.caplog.text

        await until(told)
        secrets.check()
    finally:
        await daemon.stop()


IN_THE_SERVER = """
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
clusters: [{name: c, cluster: {server: 'https://u:planted-in-a-broken-file@127.0.0.1:1'}}]
users: [{name: u, user: {token: planted-in-a-broken-file}}]
"""


@pytest.mark.parametrize(
    "content",
    [
        BROKEN,
        "users: [{name: u, user: {token: planted-in-a-broken-file",
        "current-context: c\nusers: [{name: u, user: {password: planted-in-a-broken-file}}]\n",
        IN_THE_SERVER,
    ],
)
async def test_a_broken_kubeconfig(tmp_path, secrets, content):
    """An error about an unreadable kubeconfig does not quote it."""
    path = tmp_path / "config"
    path.write_text(content)
    flags = [f"--kubeconfig={path}", "--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0"]
    daemon = Daemon(read_config(flags)[0], {})
    try:
        await daemon.start()
    except KmproxyError as error:
        secrets.show("error", str(error))
    finally:
        await daemon.stop()
    assert "error" in secrets.shown
    secrets.check(started=False)
