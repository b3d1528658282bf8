"""Credential plugins and OIDC providers: they are asked once for all requests, and end in time."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.errors import ConfigError
from kmproxy.kube import kubeconfig
from kmproxy.kube.kubeconfig import Kubeconfig
from tests.conftest import credential_failures, until
from tests.support.kubeconfigs import write
from tests.support.sites import Site, new_ca


async def test_an_exec_plugin_runs_again_when_refused(tmp_path, clock, own_metrics, cluster):
    """A credential without an end is used until a 401."""
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
    """An exec plugin that answers, or never answers after `hang`."""

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
        """The number of starts."""
        return len(self._runs.read_text())

    async def hangs(self):
        """Whether it was started and has not answered."""
        return self._pid.exists() and self._pid.read_text().endswith("\n")

    def gone(self):
        """Whether the hanging process is gone. A zombie is not gone."""
        return not Path("/proc", self._pid.read_text().strip()).exists()


@pytest.fixture
def plugin(tmp_path):
    """An exec plugin that answers."""
    return Plugin(tmp_path / "plugin")


async def test_a_plugin_that_hangs(tmp_path, clock, own_metrics, plugin, monkeypatch):
    """A hanging plugin is killed after its time. The last good credential stays in use."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    plugin.hang()
    monkeypatch.setattr(kubeconfig, "READ_TIMEOUT", 2.0)
    assert await identity.authorization(anew=True) == "Bearer t"
    assert credential_failures(own_metrics, "kubeconfig") == 1
    assert plugin.gone()


async def test_a_plugin_that_hangs_at_the_start(tmp_path, clock, own_metrics, plugin, monkeypatch):
    """The start fails, with the reason."""
    monkeypatch.setattr(kubeconfig, "READ_TIMEOUT", 2.0)
    path = write(tmp_path / "config", plugin.user)
    plugin.hang()
    with pytest.raises(
        ConfigError, match="config: user 'u': the plugin gave no credential within 2 s"
    ):
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert plugin.gone()


async def test_a_plugin_that_nobody_waits_for(tmp_path, clock, own_metrics, plugin):
    """A plugin is killed when the scrape that needs its token is cancelled."""
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
    """Refused requests share one run of the plugin. A later 401 starts another run."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    for runs in (2, 3):
        refused = [identity.authorization(anew=True) for _ in range(5)]
        assert await asyncio.gather(*refused) == ["Bearer t"] * 5
        assert plugin.runs() == runs


def jwt(end):
    """An OIDC token that ends at this time, with an unchecked signature."""
    parts = ({"alg": "none"}, {"exp": end})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(text.rstrip("=") for text in texts), "s"])


@pytest.mark.filterwarnings("ignore:.*auth:DeprecationWarning")  # the library's own, as the next
@pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")
@pytest.mark.parametrize("known", [True, False, None])
async def test_an_oidc_provider(tmp_path, clock, own_metrics, known):
    """A token is renewed if the provider's certificate verifies. Else no secret is sent."""
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


@pytest.mark.parametrize(("life", "after"), [(100, 80), (2000, 1700), (3, 10), (-60, 10)])
async def test_a_plugin_whose_credential_ends(tmp_path, clock, own_metrics, life, after):
    """The plugin runs again before its credential ends, at most every 10 s."""
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
    """The last good credential stays in use, and the plugin runs at most every 10 s."""
    path = write(tmp_path / "config", plugin.user)
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    (tmp_path / "plugin").write_text("#!/bin/sh\nexit 1\n")
    assert await identity.authorization(anew=True) == "Bearer t"
    assert await identity.authorization() == "Bearer t"
    assert credential_failures(own_metrics, "kubeconfig") == 1


@pytest.mark.filterwarnings("ignore:.*auth:DeprecationWarning")  # the library's own
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "the answer of idp-issuer-url has no id_token"),
        ([], "the answer of idp-issuer-url has no id_token"),
        (None, "refuses to renew the token; log in again"),
        ("[" * 100_000, "idp-issuer-url gave no valid answer"),
    ],
    ids=["no field", "no object", "refused", "nested"],
)
async def test_an_oidc_provider_that_says_no(tmp_path, clock, own_metrics, answer, said):
    """The error explains the refusal, and shows no secret."""
    ca = new_ca()

    def answering(seen):
        if seen.method == "GET":
            return web.json_response({"token_endpoint": f"{site.url}/token"})
        if answer is None:
            return web.Response(status=400)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(text=text, content_type="application/json")

    (tmp_path / "ca").write_bytes(ca.cert_pem.bytes())
    async with Site(answering, ca) as site:
        config = {"client-id": "c", "refresh-token": "planted", "idp-issuer-url": site.url}
        config["idp-certificate-authority"] = "ca"
        path = write(tmp_path / "config", {"auth-provider": {"name": "oidc", "config": config}})
        with pytest.raises(ConfigError) as raised:
            await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert said in str(raised.value)
    assert "planted" not in str(raised.value)


async def test_an_oidc_token_with_deeply_nested_claims(tmp_path, clock, own_metrics):
    """It is no token; and no other error than that of a credential, which would end kmproxy."""
    claims = base64.urlsafe_b64encode(b'{"x":' + b"[" * 100_000).decode().rstrip("=")
    config = {"client-id": "c", "idp-issuer-url": "https://127.0.0.1:1", "id-token": f"a.{claims}."}
    path = write(tmp_path / "config", {"auth-provider": {"name": "oidc", "config": config}})
    with pytest.raises(ConfigError, match="id-token is not a JSON Web Token"):
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
