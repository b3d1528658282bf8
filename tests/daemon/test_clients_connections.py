"""Trust, proxies and OAuth2 of the `kubelet` section: only the intended server gets requests."""

from __future__ import annotations

import pytest
from aiohttp import web

from kmproxy.client.tls import LOOK_AGAIN
from kmproxy.errors import ConfigError, UpstreamError
from kmproxy.simulator.kubelet import Fault
from tests.conftest import credential_failures
from tests.support.kubelet_reader import scrape
from tests.support.sites import ForwardProxy, Site, metrics, new_ca


async def test_a_ca_rotates(opened, mount, clock):
    """A kubelet with a certificate of the new CA is trusted within a minute."""
    old, new = new_ca(), new_ca()
    mount.swap(ca=old.cert_pem.bytes())
    async with Site(lambda _: metrics(), old) as site:
        flags = ("--node-name-or-ip=127.0.0.1", f"--node-port={site.port}")
        async with opened(*flags, tls_config={"ca_file": str(mount.path / "ca")}) as clients:
            await scrape(clients)
            site.show(new.issue_cert("127.0.0.1"))
            mount.swap(ca=new.cert_pem.bytes())
            clock.now += LOOK_AGAIN
            await scrape(clients)


async def test_what_the_certificate_must_bear(opened, cluster):
    """A CA as text and a server name are verified. Without verification any passes."""
    foreign = new_ca()
    async with Site(lambda _: metrics(), foreign, "node-x") as site:
        flags = ("--node-name-or-ip=127.0.0.1", f"--node-port={site.port}")
        ca = foreign.cert_pem.bytes().decode()
        for tls, good in (
            ({"ca_pem": ca, "server_name": "node-x"}, True),
            ({"ca": ca, "server_name": "node-y"}, False),
            ({"ca": ca, "min_version": "TLS13"}, True),
            ({"insecure_skip_verify": True}, True),
            ({"ca": cluster.ca_pem.decode()}, False),
            ({}, False),
        ):
            async with opened(*flags, tls_config=tls) as clients:
                if good:
                    assert await scrape(clients)
                    continue
                with pytest.raises(UpstreamError, match="does not verify"):
                    await scrape(clients)


async def test_oauth2(opened, cluster, reader, asked, own_metrics):
    """The kubelet gets a token of the endpoint. A refused token is replaced."""
    issued = [reader]

    def answer(seen):
        assert seen.form == {"grant_type": "client_credentials", "scope": "kubelet"}
        return web.json_response({"access_token": issued[-1], "expires_in": 3600})

    ca = new_ca()
    async with Site(answer, ca) as site:
        section = {
            "client_id": "kmproxy",
            "client_secret": "planted-secret",
            "token_url": f"{site.url}/token",
            "scopes": ["kubelet"],
            "tls_config": {"ca": ca.cert_pem.bytes().decode()},
        }
        async with opened(oauth2=section) as clients:
            for _ in range(3):
                assert b"container_" in await scrape(clients)
            assert len(site.seen) == 1
            assert asked() == f"Bearer {reader}"
            assert "planted" not in repr(clients)
    async with opened(oauth2=section) as clients:  # the endpoint is gone
        with pytest.raises(UpstreamError, match="no OAuth2 token") as raised:
            await scrape(clients)
    assert raised.value.reason == "oauth2"
    assert credential_failures(own_metrics, "oauth2") == 1


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
@pytest.mark.parametrize("named", [False, True])
async def test_the_certificate_of_a_token_endpoint(opened, scheme, named):
    """It is verified by the system's or the given CAs. An unverified one gets no secret."""
    tls = {"tls_config": {"ca": new_ca().cert_pem.bytes().decode()}} if named else {}
    async with Site(lambda _: web.json_response({"access_token": "t"}), new_ca()) as site:
        url = site.url.replace("https", scheme)
        section = {"client_id": "c", "client_secret": "s", "token_url": url} | tls
        async with opened(oauth2=section) as clients:
            with pytest.raises(UpstreamError, match="endpoint's certificate does not verify"):
                await scrape(clients)
        assert site.seen == []


async def test_oauth2_through_a_proxy(opened, reader):
    """The token endpoint has its own proxy and server name."""
    answer = web.json_response({"access_token": reader, "expires_in": 3600})
    ca = new_ca()
    async with (
        Site(lambda _: answer, ca, "sso.example") as site,
        ForwardProxy(known={"login.example": site.port}) as forward,
    ):
        section = {
            "client_id": "kmproxy",
            "client_secret": "s",
            "token_url": "https://login.example/token",
            "tls_config": {"ca": ca.cert_pem.bytes().decode(), "server_name": "sso.example"},
            "proxy_from_environment": True,
        }
        async with opened(oauth2=section, environ={"HTTPS_PROXY": forward.url}) as clients:
            assert b"container_" in await scrape(clients)
    assert [connect for connect, _ in forward.asked] == ["CONNECT login.example:443"]


async def test_a_proxy(opened, cluster):
    """The proxy connects to the kubelet by name, and only the proxy resolves the name."""
    port = cluster.kubelets["node-a"].port
    async with ForwardProxy(known={"node-a": port}, wants="Basic dTpw") as forward:
        url = forward.url.replace("://", "://u:p@")
        section = {"proxy_url": url, "proxy_connect_header": {"X-A": ["1"]}}
        async with opened("--node-name-or-ip=node-a", **section) as clients:
            assert b"container_" in await scrape(clients)
    ((connect, headers),) = forward.asked
    assert connect == f"CONNECT node-a:{port}"
    assert ("X-A", "1") in headers


@pytest.mark.parametrize("excluded", ["", "node-a", "10.0.0.0/8"])
async def test_the_proxy_of_the_environment(opened, cluster, excluded):
    """HTTPS_PROXY and NO_PROXY apply only if the section says so."""
    port = cluster.kubelets["node-a"].port
    async with ForwardProxy(known={"node-a": port}) as forward:
        environ = {"HTTPS_PROXY": forward.url, "NO_PROXY": excluded}
        flags = ("--node-name-or-ip=node-a",)
        async with opened(*flags, environ=environ, proxy_from_environment=True) as clients:
            if excluded == "node-a":
                with pytest.raises(UpstreamError, match="host name node-a is not known"):
                    await scrape(clients)
            else:
                assert b"container_" in await scrape(clients)
        async with opened(*flags, environ=environ) as clients:
            with pytest.raises(UpstreamError, match="host name node-a is not known"):
                await scrape(clients)
    assert len(forward.asked) == (excluded != "node-a")


async def test_the_environment_of_the_process(opened, cluster, asked, tmp_path, monkeypatch):
    """No proxy and no password of the environment is used unasked."""
    (tmp_path / "netrc").write_text("default login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with ForwardProxy() as forward:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, forward.url)
        for section in ({}, {"proxy_url": "proxy", "no_proxy": "127.0.0.1"}):
            async with opened(**section) as clients:
                assert b"container_" in await scrape(clients)
            assert asked() == f"Bearer {cluster.token}"
    assert forward.asked == []


async def test_a_redirect(opened, cluster, asked):
    """Refused by default. If the section allows it, another kubelet gets no credential."""
    first, second = (cluster.kubelets[name] for name in ("node-a", "node-b"))
    first.fail(Fault.REDIRECT, location=f"{second.url}/metrics/cadvisor")
    async with opened(follow_redirects=False) as clients:
        with pytest.raises(UpstreamError, match="redirect"):
            await scrape(clients)
    assert second.requests == []
    async with opened(follow_redirects=True) as clients:
        with pytest.raises(UpstreamError, match="does not accept kmproxy's credentials"):
            await scrape(clients)
    assert "Authorization" not in second.requests[-1].headers
    first.recover()
    first.fail(Fault.REDIRECT, path="/metrics/cadvisor", location="/metrics/probes")
    async with opened(follow_redirects=True) as clients:
        assert await scrape(clients)
    assert asked() == f"Bearer {cluster.token}"


async def test_a_ca_that_is_none_beside_a_section(opened):
    """The error names the flag if the flag named the file."""
    with pytest.raises(ConfigError, match="--kubelet-ca-file: "):
        async with opened("--kubelet-ca-file=/nowhere/ca", follow_redirects=True):
            pass


async def test_a_proxy_of_the_environment_that_is_none(opened):
    """The error names the variable, and does not show its value."""
    environ = {"https_proxy": "socks5://planted@proxy"}
    with pytest.raises(ConfigError, match="proxy_from_environment: https_proxy: ") as raised:
        async with opened(proxy_from_environment=True, environ=environ):
            pass
    assert "planted" not in str(raised.value)
