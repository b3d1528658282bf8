"""The form of a kubeconfig: contexts, values, proxies and servers; a wrong value is named."""

from __future__ import annotations

import base64
import logging

import pytest
import yaml

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.config.proxies import Proxy
from kmproxy.errors import ConfigError
from kmproxy.kube.kubeconfig import Kubeconfig
from tests.conftest import credential_failures
from tests.support.kubeconfigs import write


async def test_contexts_of_a_kubeconfig(tmp_path, clock, own_metrics):
    """A server name, a proxy and an unverified server are taken from the context."""
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


async def test_a_user_name_and_password(tmp_path, clock, own_metrics):
    """They are sent as basic authentication."""
    path = write(tmp_path / "config", {"username": "u", "password": "p"})
    identity = await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert await identity.authorization() == "Basic " + base64.b64encode(b"u:p").decode()


async def test_a_token_that_is_none(tmp_path, clock, own_metrics):
    """A token that cannot stand in a header is refused, and not shown."""
    path = write(tmp_path / "config", {"token": "planted secret"})
    with pytest.raises(ConfigError) as raised:
        await Kubeconfig.load(path, clock=clock, errors=own_metrics.credential_errors)
    assert "the token is not valid" in str(raised.value)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize("url", ["socks5://planted:secret@proxy", "http://planted:secret@:x"])
async def test_a_proxy_that_is_none(tmp_path, clock, own_metrics, url):
    """An invalid proxy is refused, and not shown."""
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
    """The error names the missing key. Neither it nor a log shows the other values."""
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
    """A server is asked only if its URL is clearly https or clearly http."""
    path = write(tmp_path / "config", {}, {"server": server})
    with pytest.raises(ConfigError, match="not a URL that begins with https://"):
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
    """A value of a wrong type is an error that names its key. Later the old value stays."""
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


async def test_a_name_that_no_file_can_have(clock, own_metrics):
    """An impossible file name is an error like that of a missing file."""
    with pytest.raises(ConfigError, match="File name too long"):
        await Kubeconfig.load("/" + "x" * 300, clock=clock, errors=own_metrics.credential_errors)


async def test_a_flag_names_one_file(tmp_path, clock, own_metrics):
    """A colon in the flag is part of the file name, as for kubectl. $KUBECONFIG is a list."""
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
    with pytest.raises(ConfigError, match="none: the file is not YAML"):
        await Kubeconfig.load(
            several, clock=clock, errors=own_metrics.credential_errors, listed=True
        )


async def test_a_file_that_never_ends(clock, own_metrics):
    """An endless file is read up to a bound, and refused. A folder is refused."""
    with pytest.raises(ConfigError, match="/dev/zero: the file is over 16,777,216 bytes"):
        await Kubeconfig.load("/dev/zero", clock=clock, errors=own_metrics.credential_errors)
    with pytest.raises(ConfigError, match="/proc: Is a directory"):
        await Kubeconfig.load("/proc", clock=clock, errors=own_metrics.credential_errors)
