"""What an upstream gets: the credential that its entry names, and never kmproxy's own token."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web

from kmproxy.cli.read import read_config
from kmproxy.daemon.clients import open_clients
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import ConfigError, UpstreamError
from tests.support.exporters import Exporter, answer, config_file
from tests.support.sites import ForwardProxy, Site, metrics, new_ca, redirect

KSM = "/upstreams/ksm/metrics"


@pytest.fixture
async def site(tmp_path):
    """An HTTPS exporter of a CA of its own, which remembers what it was asked."""
    ca = new_ca()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    async with Site(lambda _: metrics(), ca, "exporter.example") as running:
        yield running


@pytest.fixture
def entry(site, tmp_path):
    """A function that makes the site's entry, with more keys."""

    def make(**more):
        tls = {"ca_file": str(tmp_path / "ca.pem")}
        return {"name": "ksm", "url": f"{site.url}/metrics", "tls_config": tls, **more}

    return make


def sent(site):
    """Everything that the site was sent, as one text."""
    return "".join(f"{seen.path} {seen.headers} {seen.certificate}\n" for seen in site.seen)


async def test_the_token_of_a_pod_stays_here(front, cluster, site, entry, tmp_path):
    """No header of an identity over TLS, though the kubelet and the API server get the token."""
    proxy = await front(config_file(tmp_path, entry()))
    assert (await proxy.get(KSM))[0] == 200
    assert (await proxy.get())[0] == 200
    (seen,) = site.seen
    assert "Authorization" not in seen.headers
    assert seen.certificate is None
    assert cluster.token not in sent(site)
    assert cluster.token in str([each.headers for each in cluster.kubelets["node-a"].requests])


async def test_over_plain_http(front, cluster, tmp_path):
    """Nothing but what every client sends."""
    async with Site(lambda _: metrics()) as site:
        entry = {"name": "ksm", "url": f"{site.url}/metrics?resources=pods"}
        proxy = await front(config_file(tmp_path, entry))
        assert (await proxy.get(KSM))[0] == 200
    (seen,) = site.seen
    assert seen.path == "/metrics?resources=pods"
    assert set(seen.headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}
    assert cluster.token not in sent(site)


@pytest.mark.parametrize("answered", [200, 401, 403])
async def test_the_identity_of_a_kubeconfig_stays_here(
    cluster, site, entry, tmp_path, clock, answered
):
    """Neither its token nor its impersonation, also after a 401."""
    site._answer = lambda _: metrics() if answered == 200 else web.Response(status=answered)
    path = tmp_path / "kubeconfig"
    cluster.write_kubeconfig(path)
    config, _ = read_config([f"--kubeconfig={path}", config_file(tmp_path, entry())])
    async with open_clients(config, {}, clock=clock, metrics=OwnMetrics()) as clients:
        try:
            async with clients.upstreams["ksm"].fetch() as exposition:
                [piece async for piece in exposition.pieces]
        except UpstreamError:
            assert answered != 200
    assert site.seen
    assert cluster.token not in sent(site)
    for seen in site.seen:
        assert "Authorization" not in seen.headers
        assert not [name for name in seen.headers if name.startswith("Impersonate")]


async def test_a_kubelet_section_is_for_kubelets(cluster, site, entry, tmp_path, clock):
    """Its credential is not sent to an upstream."""
    path = tmp_path / "kubeconfig"
    cluster.write_kubeconfig(path)
    flag = config_file(tmp_path, entry(), kubelet={"bearer_token": "hunter2"})
    config, _ = read_config([f"--kubeconfig={path}", flag])
    async with (
        open_clients(config, {}, clock=clock, metrics=OwnMetrics()) as clients,
        clients.upstreams["ksm"].fetch() as exposition,
    ):
        [piece async for piece in exposition.pieces]
    assert "hunter2" not in sent(site)


@pytest.mark.parametrize(
    ("keys", "header"),
    [
        ({"bearer_token": "hunter2"}, "Bearer hunter2"),
        ({"authorization": {"type": "Key", "credentials": "hunter2"}}, "Key hunter2"),
        ({"basic_auth": {"username": "me", "password": "hunter2"}}, "Basic bWU6aHVudGVyMg=="),
    ],
)
async def test_a_credential_of_the_entry(front, site, entry, tmp_path, keys, header):
    """It is sent, with the headers of the entry."""
    proxy = await front(config_file(tmp_path, entry(http_headers={"X-Org": "1"}, **keys)))
    assert (await proxy.get(KSM))[0] == 200
    (seen,) = site.seen
    assert (seen.headers["Authorization"], seen.headers["X-Org"]) == (header, "1")


async def test_the_token_of_the_service_account_by_name(front, cluster, site, entry, tmp_path):
    """An entry may name its file: kube-rbac-proxy reviews it."""
    token = {"credentials_file": str(tmp_path / "sa" / "token")}
    cluster.write_service_account(tmp_path / "sa")
    proxy = await front(config_file(tmp_path, entry(authorization=token)))
    assert (await proxy.get(KSM))[0] == 200
    (seen,) = site.seen
    assert seen.headers["Authorization"] == f"Bearer {cluster.token}"


async def test_each_upstream_gets_its_own(front, site, entry, tmp_path):
    """Two entries of one server do not share a credential, nor a connection."""
    one = entry(bearer_token="hunter2")
    two = entry() | {"name": "two"}
    proxy = await front(config_file(tmp_path, one, two))
    assert (await proxy.get(KSM))[0] == 200
    assert (await proxy.get("/upstreams/two/metrics"))[0] == 200
    assert ["Authorization" in seen.headers for seen in site.seen] == [True, False]


@pytest.mark.parametrize("keys", [{}, {"bearer_token": "hunter2"}])
async def test_no_redirect_is_followed(front, site, entry, tmp_path, keys):
    """Neither to another host nor on the same one, with a credential or without."""
    async with Exporter() as other:
        for location in (other.url, f"{site.url}/elsewhere"):
            site._answer = lambda _, to=location: redirect(to)
            proxy = await front(config_file(tmp_path, entry(**keys)))
            status, text = await proxy.get(KSM)
            assert (status, "answered with a redirect (302), not followed" in text) == (502, True)
        assert other.heads == []
    assert {seen.path for seen in site.seen} == {"/metrics"}


async def test_a_certificate_that_does_not_verify(front, site, tmp_path):
    """502 that names the entry's key; the cluster's CA does not verify an upstream."""
    proxy = await front(config_file(tmp_path, {"name": "ksm", "url": f"{site.url}/metrics"}))
    status, text = await proxy.get(KSM)
    assert status == 502
    assert text.startswith("the upstream ksm's certificate does not verify: ")
    assert text.endswith("; see its tls_config\n")
    assert site.seen == []


@pytest.fixture
def resolved(monkeypatch):
    """A function that makes the system's resolver know names."""
    known, real = {}, socket.getaddrinfo

    def look_up(host, port, *rest, **options):
        found = []
        for address in known.get(host, [host]):
            found += real(address, port, *rest, **options)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known.update


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback"),
        ("::1", "a loopback"),
        ("169.254.169.254", "a link-local"),
        ("0.0.0.0", "an unspecified"),
    ],
)
@pytest.mark.parametrize("name", ["exporter.example", "a.localhost"])
async def test_a_name_that_hides_an_address(front, resolved, tmp_path, name, address, kind):
    """It is 502 at each connection, whatever the name led to before; nobody is connected to."""
    async with Exporter() as exporter:
        resolved({name: [address]})
        url = f"http://{name}:{exporter.port}/metrics"
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": url}))
        status, text = await proxy.get(KSM)
        assert exporter.heads == []
    assert status == 502
    assert text.startswith(
        f"kmproxy does not connect to the upstream ksm by the name {name}:{exporter.port}: "
    )
    assert text.endswith(f"is {kind} address; write the address in its URL\n")
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason="bad_address") == 1


async def test_one_good_address_is_enough(front, resolved, tmp_path):
    """The others of the name are not tried."""
    async with Exporter() as exporter:
        resolved({"exporter.example": ["127.0.0.1", "10.255.255.1"]})
        url = f"http://exporter.example:{exporter.port}/metrics"
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": url}))
        status, _ = await proxy.get(KSM, X_Prometheus_Scrape_Timeout_Seconds="0.5")
        assert exporter.heads == []
    assert status in {502, 504}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_a_loopback_address_that_is_written(front, tmp_path, host):
    """It is meant: an exporter in the same pod."""
    async with Site(lambda _: metrics()) as site:
        url = f"http://{host}:{site.port}/metrics"
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": url}))
        assert (await proxy.get(KSM))[0] == 200


async def test_through_a_proxy(front, cluster, site, entry, tmp_path):
    """The proxy resolves the name, and gets no credential."""
    async with ForwardProxy(known={"exporter.example": site.port}) as forward:
        keys = {"proxy_url": forward.url, "bearer_token": "hunter2"}
        url = f"https://exporter.example:{site.port}/metrics"
        proxy = await front(config_file(tmp_path, entry(**keys) | {"url": url}))
        assert (await proxy.get(KSM))[0] == 200
        assert (await proxy.get())[0] == 200
        asked = str(forward.asked)
    assert [seen.headers["Authorization"] for seen in site.seen] == ["Bearer hunter2"]
    assert "hunter2" not in asked
    assert len(forward.asked) == 1
    assert cluster.token not in asked + sent(site)


async def test_plain_http_through_a_proxy(front, cluster, tmp_path):
    """The proxy gets the whole URL and its own password, and resolves the name."""
    async with Exporter(answer(b"m 1\n")) as forward:
        through = f"http://me:hunter2@127.0.0.1:{forward.port}"
        entry = {"name": "ksm", "url": "http://exporter.example/metrics?a=b", "proxy_url": through}
        proxy = await front(config_file(tmp_path, entry))
        assert await proxy.get(KSM) == (200, "m 1\n")
        (head,) = forward.heads
    assert head.startswith("GET http://exporter.example/metrics?a=b HTTP/1.1\r\n")
    assert "\r\nProxy-Authorization: Basic bWU6aHVudGVyMg==\r\n" in head
    assert cluster.token not in head


async def test_files_that_cannot_be_read(front, tmp_path, entry):
    """Exit 2 at the start, with a line for each entry that is at fault."""
    one = entry(bearer_token_file="/nowhere/token")
    two = entry(tls_config={"ca_file": "/nowhere/ca"}) | {"name": "two"}
    with pytest.raises(ConfigError) as raised:
        await front(config_file(tmp_path, one, two))
    assert list(raised.value.problems) == [
        "upstreams[ksm].bearer_token_file /nowhere/token: No such file or directory",
        "upstreams[two].tls_config: upstreams[two]: CA /nowhere/ca: No such file or directory",
    ]
