"""Kubeconfigs: what is taken from them, and how they and the files they name rotate."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
import yaml
from aiohttp import web

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.tls import TlsContext
from kmproxy.config.proxies import Proxy
from kmproxy.errors import ConfigError
from kmproxy.kube import kubeconfig
from kmproxy.kube.kubeconfig import Kubeconfig
from tests.conftest import credential_failures, until
from tests.support.sites import Site, metrics, new_ca, pem_of


def write(path, user, cluster=None):
    """A kubeconfig of this user and this cluster."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


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


async def test_an_exec_plugin_runs_again_when_refused(tmp_path, clock, own_metrics, cluster):
    """Its credential holds until a 401 if it names no end."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path, auth="exec")
    identity = await Kubeconfig.load(str(path), clock=clock, errors=own_metrics.credential_errors)
    old = f"Bearer {cluster.token}"
    assert await identity.authorization() == old
    cluster.rotate_token()
    (tmp_path / "config.credential.json").write_text(
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{{"token":"{cluster.token}"}}}}'
    )
    clock.now += TOKEN_AGE
    assert await identity.authorization() == old
    assert await identity.authorization(anew=True) == f"Bearer {cluster.token}"


class Plugin:
    """An exec plugin that answers, or after `hang` never does."""

    def __init__(self, path):
        self._hang, self._pid = path.with_suffix(".hang"), path.with_suffix(".pid")
        self._runs = path.with_suffix(".runs")
        path.write_text(
            f"#!/bin/sh\necho >>{self._runs}\n"
            f"if [ -e {self._hang} ]; then echo $$ >{self._pid}; exec sleep 600; fi\n"
            'echo \'{"apiVersion": "client.authentication.k8s.io/v1",\'\n'
            'echo \'"kind": "ExecCredential", "status": {"token": "t"}}\'\n'
        )
        path.chmod(0o755)
        self.user = {
            "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}
        }

    def hang(self):
        """From now on, never answer."""
        self._hang.touch()

    def runs(self):
        """How often it was started."""
        return len(self._runs.read_text())

    async def hangs(self):
        """Whether it was started and has not answered."""
        return self._pid.exists() and self._pid.read_text().endswith("\n")

    def gone(self):
        """Whether the process that hung is no more, not even as a zombie."""
        return not Path("/proc", self._pid.read_text().strip()).exists()


@pytest.fixture
def plugin(tmp_path):
    """An exec plugin that answers."""
    return Plugin(tmp_path / "plugin")


async def test_a_plugin_that_hangs(tmp_path, clock, own_metrics, plugin, monkeypatch):
    """It is waited for so long, then killed; what is good stays in use."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    plugin.hang()
    monkeypatch.setattr(kubeconfig, "READ_TIMEOUT", 2.0)
    assert await identity.authorization(anew=True) == "Bearer t"
    assert credential_failures(own_metrics, "kubeconfig") == 1
    assert plugin.gone()


async def test_a_plugin_that_hangs_at_the_start(tmp_path, clock, own_metrics, plugin, monkeypatch):
    """There is no start then, and why is said."""
    monkeypatch.setattr(kubeconfig, "READ_TIMEOUT", 2.0)
    path = write(tmp_path / "config", plugin.user)
    plugin.hang()
    with pytest.raises(ConfigError, match="config: user 'u': no credential within 2 s, its plugin"):
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert plugin.gone()


async def test_a_plugin_that_nobody_waits_for(tmp_path, clock, own_metrics, plugin):
    """It is killed as well: the scrape that wanted its token was given up."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    plugin.hang()
    waiting = asyncio.create_task(identity.authorization(anew=True))
    await until(plugin.hangs)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert plugin.gone()
    assert await identity.authorization() == "Bearer t"


async def test_several_who_were_refused(tmp_path, clock, own_metrics, plugin):
    """They share one run of the plugin; who is refused later has another."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    for runs in (2, 3):
        refused = [identity.authorization(anew=True) for _ in range(5)]
        assert await asyncio.gather(*refused) == ["Bearer t"] * 5
        assert plugin.runs() == runs


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


async def test_contexts_of_a_kubeconfig(tmp_path, clock, own_metrics):
    """A server name, a proxy and an unverified server are taken over."""
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: two\n"
        "contexts: [{name: one, context: {cluster: one}}, {name: two, context: {cluster: two, user: u}}]\n"
        "clusters: [{name: one, cluster: {server: 'https://one'}}, {name: two, cluster: "
        "{server: 'https://two/', tls-server-name: 'n', proxy-url: 'http://p:1', insecure-skip-tls-verify: true}}]\n"
        "users: [{name: u, user: {}}]\n"
    )
    identity = await Kubeconfig.load(
        str(tmp_path / "config"), clock=clock, errors=own_metrics.credential_errors
    )
    assert (identity.server, identity.server_name) == ("https://two", "n")
    assert identity.proxy == Proxy("http://p:1")
    assert not identity.trust.verify
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


async def test_a_user_name_and_password(tmp_path, clock, own_metrics):
    """They are sent as they have always been."""
    path = write(tmp_path / "config", {"username": "u", "password": "p"})
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Basic " + base64.b64encode(b"u:p").decode()


async def test_a_token_that_is_none(tmp_path, clock, own_metrics):
    """A token that cannot stand in a header is refused, and not shown."""
    path = write(tmp_path / "config", {"token": "planted secret"})
    with pytest.raises(ConfigError) as raised:
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert "not a token" in str(raised.value)
    assert "planted" not in str(raised.value)


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


@pytest.mark.parametrize("url", ["socks5://planted:secret@proxy", "http://planted:secret@:x"])
async def test_a_proxy_that_is_none(tmp_path, clock, own_metrics, url):
    """It is refused, and not shown."""
    path = write(tmp_path / "config", {}, {"proxy-url": url})
    with pytest.raises(ConfigError, match="proxy-url: ") as raised:
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    "user",
    [
        {"user": ["planted"]},
        {"user": {"token": ["planted"]}},
        {"user": {"token": "planted", "exec": {}}},
        {"user": {"token": "planted", "auth-provider": {}}},
        {"user": {"exec": {"command": "x", "apiVersion": "v1", "env": [{"name": "planted"}]}}},
        {"user": {"auth-provider": {"name": "oidc", "config": {"refresh-token": "planted"}}}},
    ],
)
async def test_a_user_that_lacks_something(tmp_path, clock, own_metrics, caplog, user):
    """It is refused and named; what else is in it is shown neither by the error nor a log."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "config"
    write(path, {})
    document = yaml.safe_load(path.read_text())
    document["users"] = [{"name": "u"} | user]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="user 'u'") as raised:
        await Kubeconfig.load(str(path), clock=clock, errors=own_metrics.credential_errors)
    assert "planted" not in str(raised.value)
    assert "planted" not in caplog.text


@pytest.mark.parametrize("server", ["HTTP5://api:6443", "https:/api", "ftp://api", "a b:1"])
async def test_a_server_that_is_none(tmp_path, clock, own_metrics, server):
    """Only what is surely https, or surely not, is asked at all."""
    path = write(tmp_path / "config", {}, {"server": server})
    with pytest.raises(ConfigError, match="not one that begins with https://"):
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)


@pytest.mark.parametrize(
    "cluster",
    [
        {"insecure-skip-tls-verify": "false"},
        {"insecure-skip-tls-verify": 1},
        {"tls-server-name": ["x"]},
        {"tls-server-name": "a\0b"},
        {"tls-server-name": ".x"},
        {"proxy-url": 5},
        {"server": "https://[::1"},
        {"server": "https://api:x"},
    ],
)
async def test_a_value_of_the_wrong_kind(tmp_path, clock, own_metrics, cluster):
    """It is an error, named by its key, and never read as something else; later the old one stays."""
    (key,) = cluster
    path = write(tmp_path / "config", {}, cluster)
    with pytest.raises(ConfigError, match=f"config: .*{key}"):
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    write(tmp_path / "config", {"token": "t"}, {"insecure-skip-tls-verify": False})
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    write(tmp_path / "config", {"token": "other"}, cluster)
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer t"
    assert identity.trust.verify
    assert credential_failures(own_metrics, "kubeconfig") == 1


def jwt(end):
    """An OIDC token that ends then; nobody verifies it."""
    parts = ({"alg": "none"}, {"exp": end})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(text.rstrip("=") for text in texts), "s"])


@pytest.mark.filterwarnings("ignore:.*auth:DeprecationWarning")  # the library's own, as the next
@pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")
@pytest.mark.parametrize("known", [True, False, None])
async def test_an_oidc_provider(tmp_path, clock, own_metrics, known):
    """A token is renewed where the provider's certificate verifies; else it is told no secret."""
    ca, fresh = new_ca(), jwt(int(time.time()) + 3600)

    def answer(seen):
        if seen.method == "GET":
            return web.json_response({"token_endpoint": f"{site.url}/token"})
        assert seen.form["refresh_token"] == "r"
        return web.json_response({"id_token": fresh, "refresh_token": "r"})

    config = {"client-id": "c", "client-secret": "s", "refresh-token": "r", "id-token": jwt(1)}
    if known is not None:
        pem = (ca if known else new_ca()).cert_pem.bytes()
        config["idp-certificate-authority-data"] = base64.b64encode(pem).decode()
    async with Site(answer, ca) as site:
        config["idp-issuer-url"] = site.url
        provider = {"name": "oidc", "config": config}
        path = write(tmp_path / "config", {"auth-provider": provider})
        if known:
            identity = await Kubeconfig.load(
                path, clock=clock, errors=own_metrics.credential_errors
            )
            assert await identity.authorization() == f"Bearer {fresh}"
        else:
            with pytest.raises(
                ConfigError, match="oidc: the certificate of idp-issuer-url does not verify"
            ):
                await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
            assert site.seen == []


async def test_a_name_that_no_file_can_have(clock, own_metrics):
    """It is an error like that of a file which is not there, or may not be seen."""
    with pytest.raises(ConfigError, match="File name too long"):
        await Kubeconfig.load("/" + "x" * 300, clock=clock, errors=own_metrics.credential_errors)


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


@pytest.mark.parametrize(("life", "after"), [(100, 80), (2000, 1700), (3, 10), (-60, 10)])
async def test_a_plugin_whose_credential_ends(tmp_path, clock, own_metrics, life, after):
    """It runs again before that end, and at most every 10 s; not before, and not each minute."""
    runs = tmp_path / "runs"
    end = datetime.fromtimestamp(time.time() + life, UTC).isoformat()
    status = {"token": "t", "expirationTimestamp": end}
    version = "client.authentication.k8s.io/v1"
    text = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    (tmp_path / "plugin").write_text(f"#!/bin/sh\necho >>{runs}\necho '{text}'\n")
    (tmp_path / "plugin").chmod(0o755)
    user = {"exec": {"apiVersion": version, "command": "./plugin"}}
    path = write(tmp_path / "config", user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    for seconds, expected in ((after - 3, 1), (6, 2)):
        clock.now += seconds
        for _ in range(3):
            assert await identity.authorization() == "Bearer t"
        assert len(runs.read_text()) == expected


async def test_a_plugin_that_fails_later(tmp_path, clock, own_metrics, plugin):
    """The last good credential stays in use, and it is asked again at most every 10 s."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    (tmp_path / "plugin").write_text("#!/bin/sh\nexit 1\n")
    assert await identity.authorization(anew=True) == "Bearer t"
    assert await identity.authorization() == "Bearer t"
    assert credential_failures(own_metrics, "kubeconfig") == 1


async def test_a_flag_names_one_file(tmp_path, clock, own_metrics):
    """A colon in it is part of its name, as for kubectl; only $KUBECONFIG is a list."""
    path = write(tmp_path / "a:b", {"token": "t"})
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Bearer t"
    several = f"{tmp_path / 'none'}:{write(tmp_path / 'c', {'token': 'c'})}"
    with pytest.raises(ConfigError, match="No such file"):
        await Kubeconfig.load(several, clock=clock, errors=own_metrics.credential_errors)
    identity = await Kubeconfig.load(
        several, clock=clock, errors=own_metrics.credential_errors, listed=True
    )
    assert await identity.authorization() == "Bearer c"
    (tmp_path / "none").write_text("a: [")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer c"
    with pytest.raises(ConfigError, match="none: it is not YAML"):
        await Kubeconfig.load(
            several, clock=clock, errors=own_metrics.credential_errors, listed=True
        )


async def test_a_file_that_never_ends(clock, own_metrics):
    """It is read so far, and refused; so is a folder."""
    with pytest.raises(ConfigError, match="/dev/zero: it is over 16,777,216 bytes"):
        await Kubeconfig.load("/dev/zero", clock=clock, errors=own_metrics.credential_errors)
    with pytest.raises(ConfigError, match="/proc: Is a directory"):
        await Kubeconfig.load("/proc", clock=clock, errors=own_metrics.credential_errors)


async def test_a_token_beside_a_file(tmp_path, mount, clock, own_metrics):
    """The file's token is sent; the other one where the file cannot be read."""
    user = {"token": "inline", "tokenFile": str(mount.path / "token")}
    path = write(tmp_path / "config", user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Bearer inline"
    mount.swap(token="of-the-file\n")
    clock.now += TOKEN_AGE
    assert await identity.authorization() == "Bearer of-the-file"


@pytest.mark.filterwarnings("ignore:.*auth:DeprecationWarning")  # the library's own
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "the answer of idp-issuer-url holds no id_token"),
        ([], "the answer of idp-issuer-url holds no id_token"),
        (None, "refuses to renew the token; log in again"),
    ],
)
async def test_an_oidc_provider_that_says_no(tmp_path, clock, own_metrics, answer, said):
    """It is said in words, and no secret is shown."""
    ca = new_ca()

    def answering(seen):
        if seen.method == "GET":
            return web.json_response({"token_endpoint": f"{site.url}/token"})
        return web.Response(status=400) if answer is None else web.json_response(answer)

    (tmp_path / "ca").write_bytes(ca.cert_pem.bytes())
    async with Site(answering, ca) as site:
        config = {"client-id": "c", "refresh-token": "planted", "idp-issuer-url": site.url}
        config["idp-certificate-authority"] = "ca"
        path = write(tmp_path / "config", {"auth-provider": {"name": "oidc", "config": config}})
        with pytest.raises(ConfigError) as raised:
            await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert said in str(raised.value)
    assert "planted" not in str(raised.value)
