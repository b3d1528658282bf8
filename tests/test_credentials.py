"""Tokens, CAs and kubeconfigs: how they are read, and how they rotate."""

from __future__ import annotations

import ssl

import pytest
import trustme

from kmproxy.cli import read_config
from kmproxy.config import ApiServerConfig, KubeletConfig
from kmproxy.credentials import (
    CA_AGE,
    TOKEN_AGE,
    Kubeconfig,
    ServiceAccount,
    TlsContext,
    Trust,
    find_identity,
    kubelet_trust,
)
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.telemetry import Telemetry

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def telemetry():
    """Metrics of their own."""
    return Telemetry()


def failures(telemetry, credential):
    """How often a credential could not be read anew."""
    return telemetry.credential_errors.labels(credential)._value.get()


@pytest.fixture
def account(tmp_path, clock, telemetry):
    """A service account with the token `one`."""
    (tmp_path / "token").write_text("one\n")
    return ServiceAccount(str(tmp_path), POD, clock=clock, telemetry=telemetry)


async def test_a_token_is_read_again_after_a_minute(account, tmp_path, clock):
    """A rotated token is used a minute later at most, and is stripped."""
    assert await account.authorization() == "Bearer one"
    (tmp_path / "token").write_text("  two\n")
    clock.now += TOKEN_AGE - 0.1
    assert await account.authorization() == "Bearer one"
    clock.now += 0.1
    assert await account.authorization() == "Bearer two"


async def test_a_token_is_read_anew_after_a_401(account, tmp_path):
    """Anew means now."""
    (tmp_path / "token").write_text("two")
    assert await account.authorization(anew=True) == "Bearer two"


@pytest.mark.parametrize("content", [None, b"", b"a b", b"\xff"])
async def test_a_bad_new_token_keeps_the_last_good_one(account, tmp_path, telemetry, content):
    """A missing or damaged token file is counted, and the old token stays."""
    (tmp_path / "token").unlink()
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    assert await account.authorization(anew=True) == "Bearer one"
    assert failures(telemetry, "token") == 1


def test_the_server_of_a_pod(tmp_path, clock, telemetry):
    """Host and port come from the environment; an IPv6 address is put in brackets."""
    (tmp_path / "token").write_text("t")
    for host, server in (
        ("10.0.0.1", "https://10.0.0.1:6443"),
        ("fd00::1", "https://[fd00::1]:6443"),
    ):
        pod = POD | {"KUBERNETES_SERVICE_HOST": host}
        assert ServiceAccount(str(tmp_path), pod, clock=clock, telemetry=telemetry).server == server


def test_nothing_secret_is_shown(account):
    """A token is in no repr."""
    assert "one" not in repr(account)


def write_ca(path):
    """A new CA's certificate."""
    trustme.CA().cert_pem.write_to_path(str(path))


def test_a_context_follows_its_files(tmp_path, clock, telemetry):
    """A new CA makes a new context five minutes later at most; the old CA is forgotten."""
    write_ca(tmp_path / "ca")
    trust = Trust(ca_file=str(tmp_path / "ca"))
    tls = TlsContext(lambda: trust, "CA", clock=clock, telemetry=telemetry)
    first = tls.current()
    clock.now += CA_AGE
    assert tls.current() is first
    write_ca(tmp_path / "ca")
    assert tls.current() is first
    clock.now += CA_AGE
    second = tls.current()
    assert second is not first
    assert len(second.get_ca_certs()) == 1
    assert second.get_ca_certs() != first.get_ca_certs()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bad_new_ca_keeps_the_last_good_one(tmp_path, clock, telemetry, content):
    """A missing or damaged CA file is counted, and the old context stays until it is whole."""
    write_ca(tmp_path / "ca")
    trust = Trust(ca_file=str(tmp_path / "ca"))
    tls = TlsContext(lambda: trust, "CA", clock=clock, telemetry=telemetry)
    first = tls.current()
    (tmp_path / "ca").unlink()
    if content is not None:
        (tmp_path / "ca").write_text(content)
    clock.now += CA_AGE
    assert tls.current() is first
    assert failures(telemetry, "ca") == 1
    write_ca(tmp_path / "ca")
    clock.now += CA_AGE
    assert tls.current() is not first


def test_a_context_that_never_was(tmp_path, clock, telemetry):
    """Without a good one to keep, a bad CA is an error that names the file."""
    trust = Trust(ca_file=str(tmp_path / "ca"))
    tls = TlsContext(lambda: trust, "the CA", clock=clock, telemetry=telemetry)
    with pytest.raises(CredentialError, match=r"the CA: .*/ca: No such file"):
        tls.current()


def test_contexts(tmp_path, account):
    """Certificates are verified unless told otherwise; a kubelet's by the cluster's CA."""
    write_ca(tmp_path / "ca.crt")
    write_ca(tmp_path / "other")
    strict = kubelet_trust(KubeletConfig(), account)
    assert strict == Trust(ca_file=str(tmp_path / "ca.crt"))
    context = strict.context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    named = kubelet_trust(KubeletConfig(ca_file=str(tmp_path / "other")), account)
    assert named.ca_file == str(tmp_path / "other")
    loose = kubelet_trust(KubeletConfig(insecure_tls=True), account).context()
    assert loose.verify_mode is ssl.CERT_NONE


async def test_which_identity(tmp_path, clock, telemetry, cluster):
    """--kubeconfig, then the pod's, then $KUBECONFIG, then ~/.kube/config."""
    (tmp_path / "token").write_text("t")
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    for path in (tmp_path / "flag", tmp_path / "env", home / ".kube" / "config"):
        cluster.write_kubeconfig(path)
    sa = str(tmp_path)

    async def found(flag, environment):
        config = ApiServerConfig(kubeconfig=flag, service_account_dir=sa)
        return repr(await find_identity(config, environment, clock=clock, telemetry=telemetry))

    named = {"KUBECONFIG": str(tmp_path / "env")}
    homed = {"HOME": str(home)}
    assert str(tmp_path / "flag") in await found(str(tmp_path / "flag"), POD | named | homed)
    assert await found(None, POD | named | homed) == (
        f"<ServiceAccount at https://10.0.0.1:6443, token from {tmp_path}/token>"
    )
    assert str(tmp_path / "env") in await found(None, named | homed)
    assert str(home / ".kube" / "config") in await found(None, homed)
    with pytest.raises(ConfigError, match="no API server"):
        await found(None, {"HOME": str(tmp_path)})


async def test_a_kubeconfig_that_changes(tmp_path, clock, telemetry, cluster):
    """A new token is used a minute later at most; a bad new file keeps the old one."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path)
    identity = await Kubeconfig.load(str(path), clock=clock, telemetry=telemetry)
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
    assert failures(telemetry, "kubeconfig") == 1
    assert identity.server == cluster.api.url


async def test_an_exec_plugin_runs_again_when_refused(tmp_path, clock, telemetry, cluster):
    """Its credential holds until a 401 if it names no end."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path, auth="exec")
    identity = await Kubeconfig.load(str(path), clock=clock, telemetry=telemetry)
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


async def test_no_token_over_plain_http(tmp_path, clock, telemetry):
    """A kubeconfig whose server is http:// sends no credential, as client-go does not."""
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:8001'}}]\n"
        "users: [{name: u, user: {token: secret}}]\n"
    )
    identity = await Kubeconfig.load(str(tmp_path / "config"), clock=clock, telemetry=telemetry)
    assert await identity.authorization() is None


async def test_contexts_of_a_kubeconfig(tmp_path, clock, telemetry):
    """A server name, a proxy and an unverified server are taken over."""
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: two\n"
        "contexts: [{name: one, context: {cluster: one}}, {name: two, context: {cluster: two, user: u}}]\n"
        "clusters: [{name: one, cluster: {server: 'https://one'}}, {name: two, cluster: "
        "{server: 'https://two/', tls-server-name: n, proxy-url: 'http://p:1', insecure-skip-tls-verify: true}}]\n"
        "users: [{name: u, user: {}}]\n"
    )
    identity = await Kubeconfig.load(str(tmp_path / "config"), clock=clock, telemetry=telemetry)
    assert (identity.server, identity.server_name, identity.proxy) == (
        "https://two",
        "n",
        "http://p:1",
    )
    assert not identity.trust.verify
    assert await identity.authorization() is None


def test_the_default_directory():
    """Where every pod finds its own."""
    config, _ = read_config([])
    assert config.apiserver.service_account_dir == "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_several_kubeconfigs(tmp_path, clock, telemetry, cluster):
    """$KUBECONFIG may name several files, some of which may be missing."""
    cluster.write_kubeconfig(tmp_path / "two")
    environment = {"KUBECONFIG": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}
    identity = await find_identity(ApiServerConfig(), environment, clock=clock, telemetry=telemetry)
    assert identity.server == cluster.api.url
