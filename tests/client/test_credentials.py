"""Which identity is found, and how a pod's own rotates."""

from __future__ import annotations

import ssl

import pytest
import trustme

from kmproxy.cli.read import read_config
from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.tls import Trust, client_trust
from kmproxy.config.http_options import Access, Authorization, TlsOptions
from kmproxy.config.sections import ApiServerConfig, KubeletConfig
from kmproxy.config.types import File
from kmproxy.errors import ConfigError
from kmproxy.kube.service_account import ServiceAccount, find_identity
from kmproxy.sources.kubelet_trust import kubelet_trust
from tests.conftest import credential_failures

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.fixture
def account(tmp_path, clock, own_metrics):
    """A service account with the token `one`."""
    (tmp_path / "token").write_text("one\n")
    return ServiceAccount(str(tmp_path), POD, clock=clock, errors=own_metrics.credential_errors)


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
async def test_a_bad_new_token_keeps_the_last_good_one(account, tmp_path, own_metrics, content):
    """A missing or damaged token file is counted, and the old token stays."""
    (tmp_path / "token").unlink()
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    assert await account.authorization(anew=True) == "Bearer one"
    assert credential_failures(own_metrics, "token") == 1


def test_the_server_of_a_pod(tmp_path, clock, own_metrics):
    """Host and port come from the environment; an IPv6 address is put in brackets."""
    (tmp_path / "token").write_text("t")
    for host, server in (
        ("10.0.0.1", "https://10.0.0.1:6443"),
        ("fd00::1", "https://[fd00::1]:6443"),
    ):
        pod = POD | {"KUBERNETES_SERVICE_HOST": host}
        assert (
            ServiceAccount(
                str(tmp_path), pod, clock=clock, errors=own_metrics.credential_errors
            ).server
            == server
        )


def test_nothing_secret_is_shown(account):
    """A token is in no repr."""
    assert "one" not in repr(account)


def test_contexts(tmp_path, account):
    """Certificates are verified unless told otherwise; a kubelet's by the cluster's CA."""
    for name in ("ca.crt", "other"):
        trustme.CA().cert_pem.write_to_path(str(tmp_path / name))
    strict = kubelet_trust(KubeletConfig(), account.trust)
    assert strict == Trust(ca=File(str(tmp_path / "ca.crt")))
    context = strict.context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    named = kubelet_trust(KubeletConfig(ca_file=str(tmp_path / "other")), account.trust)
    assert named.ca == File(str(tmp_path / "other"))
    loose = kubelet_trust(KubeletConfig(insecure_tls=True), account.trust).context()
    assert loose.verify_mode is ssl.CERT_NONE


async def test_which_identity(tmp_path, clock, own_metrics, cluster):
    """--kubeconfig, then the pod's, then $KUBECONFIG, then ~/.kube/config."""
    (tmp_path / "token").write_text("t")
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    for path in (tmp_path / "flag", tmp_path / "env", home / ".kube" / "config"):
        cluster.write_kubeconfig(path)
    sa = str(tmp_path)

    async def found(flag, environment):
        config = ApiServerConfig(kubeconfig=flag, service_account_dir=sa)
        return repr(
            await find_identity(
                config, environment, clock=clock, errors=own_metrics.credential_errors
            )
        )

    named = {"KUBECONFIG": str(tmp_path / "env")}
    homed = {"HOME": str(home)}
    assert str(tmp_path / "flag") in await found(str(tmp_path / "flag"), POD | named | homed)
    assert await found(None, POD | named | homed) == (
        f"<ServiceAccount at https://10.0.0.1:6443, token from {tmp_path}/token>"
    )
    assert str(tmp_path / "env") in await found(None, named | homed)
    assert str(home / ".kube" / "config") in await found(None, homed)
    assert str(home / ".kube" / "config") in await found(
        None, {"KUBERNETES_SERVICE_HOST": ""} | homed
    )
    for nowhere in (str(tmp_path), "/" + "x" * 300):
        with pytest.raises(ConfigError, match="no API server"):
            await found(None, {"HOME": nowhere})


def test_the_default_directory():
    """Where every pod finds its own."""
    config, _ = read_config([])
    assert config.apiserver.service_account_dir == "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_several_kubeconfigs(tmp_path, clock, own_metrics, cluster):
    """$KUBECONFIG may name several files, some of which may be missing."""
    cluster.write_kubeconfig(tmp_path / "two")
    environment = {"KUBECONFIG": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}
    identity = await find_identity(
        ApiServerConfig(), environment, clock=clock, errors=own_metrics.credential_errors
    )
    assert identity.server == cluster.api.url


def test_the_trust_of_another_server():
    """It is the system's CAs, or what its options say."""
    pair = {"cert": File("/c"), "key": File("/k")}
    for options, trust in (
        (TlsOptions(), Trust()),
        (TlsOptions(ca=File("/ca"), **pair), Trust(File("/ca"), **pair)),
        (TlsOptions(min_version="TLS13"), Trust(minimum="TLS13")),
        (TlsOptions(insecure=True, min_version="TLS13"), Trust(verify=False, minimum="TLS13")),
    ):
        assert client_trust(options) == trust


def test_the_trust_of_a_kubelet_section(account):
    """It changes what it names; our own certificate goes only where no other identity is given."""
    own = {"cert": File("/own.crt"), "key": File("/own.key")}
    account._trust = Trust(File("/ca"), **own)
    pair = {"cert": File("/c"), "key": File("/k")}
    for access, trust in (
        (Access(), Trust(File("/ca"), **own)),
        (Access(tls=TlsOptions(min_version="TLS13")), Trust(File("/ca"), **own, minimum="TLS13")),
        (Access(tls=TlsOptions(ca=File("/x"))), Trust(File("/x"), **own)),
        (Access(tls=TlsOptions(insecure=True)), Trust(None, **own, verify=False)),
        (Access(tls=TlsOptions(**pair)), Trust(File("/ca"), **pair)),
        (Access(Authorization(File("/t"), "bearer_token_file")), Trust(File("/ca"))),
    ):
        assert kubelet_trust(KubeletConfig(), account.trust, access) == trust
    flagged = kubelet_trust(KubeletConfig(ca_file="/flag"), account.trust, Access())
    assert flagged.ca == File("/flag")
