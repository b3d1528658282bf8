"""The clients that a configuration opens: the server that each asks, and its identity."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web

from kmproxy.cli.read import read_config
from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.daemon.clients import open_clients
from kmproxy.errors import ConfigError, CredentialError, UpstreamError
from kmproxy.sources.endpoints import CADVISOR
from tests.support.kubelet_reader import scrape
from tests.support.sites import ForwardProxy, Site, metrics, new_ca, pem_of


async def all_nodes(clients):
    """Every node that the API server lists."""
    return [node async for some in clients.nodes.list_all() for node in some]


async def test_direct(opened, cluster):
    """The kubelet is asked directly, and no node directory is made."""
    async with opened() as clients:
        assert clients.nodes is None
        async with clients.kubelet.fetch(clients.kubelet.configured, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert cluster.api.requests == []
    assert len(cluster.kubelets["node-a"].requests) == 1


async def test_through_the_api_server(opened, cluster):
    """The node proxy is asked, verified by the cluster's CA. Nodes are found by name."""
    port = urlsplit(cluster.api.url).port
    flags = (f"--kube-apiserver=127.0.0.1:{port}", "--all-nodes")
    async with opened(*flags) as clients:
        node = await clients.nodes.find("node-b")
        async with clients.kubelet.fetch(node, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert len(cluster.api.requests) == 2


async def test_a_ca_that_is_none(opened, tmp_path):
    """An invalid CA is a configuration error before any request."""
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConfigError, match="--kubelet-ca-file"):
        async with opened(f"--kubelet-ca-file={tmp_path / 'ca'}"):
            pass


async def test_a_server_name_that_changes(cluster, tmp_path, clock, own_metrics):
    """A changed server name of a kubeconfig is used for verification."""
    path = tmp_path / "config"

    def name(server_name):
        cluster.write_kubeconfig(path)
        document = json.loads(path.read_text())
        document["clusters"][0]["cluster"]["tls-server-name"] = server_name
        path.write_text(json.dumps(document))
        clock.now += TOKEN_AGE

    name("localhost")
    config, _ = read_config([f"--kubeconfig={path}", "--all-nodes"])
    async with open_clients(config, {}, clock=clock, metrics=own_metrics) as clients:
        for server_name, good in (("localhost", True), ("elsewhere", False), ("node-a", True)):
            name(server_name)
            if good:
                assert len(await all_nodes(clients)) == 2
            else:
                with pytest.raises(UpstreamError, match="certificate does not verify"):
                    await all_nodes(clients)


async def test_a_server_that_changes(cluster, tmp_path, clock, own_metrics):
    """A changed server is used at once, and the old one does not get the new token."""
    path, ca = tmp_path / "config", new_ca()
    cluster.write_kubeconfig(path)
    document = json.loads(path.read_text())
    document["clusters"][0]["cluster"] = {
        "certificate-authority-data": base64.b64encode(ca.cert_pem.bytes()).decode()
    }

    def lead(site, token):
        document["clusters"][0]["cluster"]["server"] = site.url
        document["users"][0]["user"] = {"token": token}
        path.write_text(json.dumps(document))
        clock.now += TOKEN_AGE

    async with Site(lambda _: metrics("{}"), ca) as old, Site(lambda _: metrics("{}"), ca) as new:
        lead(old, "one")
        config, _ = read_config([f"--kubeconfig={path}", "--all-nodes"])
        async with open_clients(config, {}, clock=clock, metrics=own_metrics) as clients:
            for site, token in ((old, "one"), (new, "two"), (old, "three")):
                lead(site, token)
                with pytest.raises(UpstreamError):
                    await all_nodes(clients)
        told = [[request.headers["Authorization"] for request in site.seen] for site in (old, new)]
    assert told == [["Bearer one", "Bearer three"], ["Bearer two"]]


async def test_a_server_that_changes_while_it_refuses(tmp_path, clock, own_metrics):
    """A token read after a 401 belongs to the new server. The old one does not get it."""
    path, ca = tmp_path / "config", new_ca()

    def lead(site, token):
        data = base64.b64encode(ca.cert_pem.bytes()).decode()
        cluster = {"server": site.url, "certificate-authority-data": data}
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path.write_text(json.dumps(document))

    def refuse(_):
        lead(new, "two")
        return web.Response(status=401)

    async with Site(refuse, ca) as old, Site(lambda _: metrics("{}"), ca) as new:
        lead(old, "one")
        config, _ = read_config([f"--kubeconfig={path}", "--all-nodes"])
        async with open_clients(config, {}, clock=clock, metrics=own_metrics) as clients:
            with pytest.raises(CredentialError, match="the server has changed"):
                await all_nodes(clients)
            with pytest.raises(UpstreamError):  # {} is no list
                await all_nodes(clients)
        told = [[request.headers["Authorization"] for request in site.seen] for site in (old, new)]
    assert told == [["Bearer one"], ["Bearer two"]]


async def test_a_plugin_that_gives_certificates(tmp_path, clock, own_metrics):
    """A 401 runs the plugin again, because a certificate's end is not known otherwise."""
    ca, plugin = new_ca(), tmp_path / "credential.json"
    version = "client.authentication.k8s.io/v1"

    def give(name):
        cert, key = (part.decode() for part in pem_of(ca.issue_cert(common_name=name)))
        status = {"clientCertificateData": cert, "clientKeyData": key}
        document = {"apiVersion": version, "kind": "ExecCredential", "status": status}
        plugin.write_text(json.dumps(document))

    good = ["one"]
    async with Site(
        lambda seen: metrics("{}") if seen.certificate in good else web.Response(status=401), ca
    ) as site:
        data = base64.b64encode(ca.cert_pem.bytes()).decode()
        cluster = {"server": site.url, "certificate-authority-data": data}
        user = {"exec": {"apiVersion": version, "command": "cat", "args": [str(plugin)]}}
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }
        (tmp_path / "config").write_text(json.dumps(document))
        give("one")
        config, _ = read_config([f"--kubeconfig={tmp_path / 'config'}"])
        async with open_clients(config, {}, clock=clock, metrics=own_metrics) as clients:
            assert await clients.api.get("/x", {}, accept="*/*") == b"{}"
            give("two")
            good[0] = "two"
            assert await clients.api.get("/x", {}, accept="*/*") == b"{}"
    assert [seen.certificate for seen in site.seen] == ["one", "one", "two"]


def kubeconfig(path, url, ca, user, **cluster):
    """The flag of a kubeconfig for this server."""
    data = base64.b64encode(ca.cert_pem.bytes()).decode()
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": url, "certificate-authority-data": data} | cluster}
        ],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(document))
    return f"--kubeconfig={path}"


async def test_impersonation(tmp_path, clock, own_metrics):
    """API server and node proxy get the impersonation headers. Kubelets do not."""
    user, ca, path = {"token": "t", "as": "jane"}, new_ca(), tmp_path / "config"
    async with Site(lambda _: metrics(), ca) as site:

        def opened_by(*flags, user=user):
            more = [f"--node-port={site.port}", "--node-name-or-ip=127.0.0.1"]
            config, _ = read_config([kubeconfig(path, site.url, ca, user), *more, *flags])
            return open_clients(config, {}, clock=clock, metrics=own_metrics)

        async with opened_by(f"--kube-apiserver={site.url}") as clients:
            await scrape(clients)
            await clients.api.get("/api", {}, accept="*/*")
        for seen in site.seen:
            assert seen.headers["Impersonate-User"] == "jane"
            assert seen.headers["Authorization"] == "Bearer t"
        site.seen.clear()
        with pytest.raises(ConfigError, match=r"config: the kubeconfig's user impersonates \(as\)"):
            async with opened_by():
                pass
        async with opened_by(user={"token": "t"}) as clients:
            await scrape(clients)
            kubeconfig(path, site.url, ca, user)
            clock.now += TOKEN_AGE
            with pytest.raises(CredentialError, match="which kubelets do not support"):
                await scrape(clients)
        assert len(site.seen) == 1


async def test_impersonation_beside_a_credential_for_kubelets(tmp_path, clock, own_metrics):
    """Kubelets get the section's own credential, without impersonation."""
    ca, path = new_ca(), tmp_path / "config"
    (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": {"bearer_token": "own"}}))
    async with Site(lambda _: metrics(), ca) as site:
        flag = kubeconfig(path, site.url, ca, {"token": "t", "as": "jane"})
        more = ["--node-name-or-ip=127.0.0.1", f"--config={tmp_path / 'k.yaml'}"]
        config, _ = read_config([flag, f"--node-port={site.port}", *more])
        async with open_clients(config, {}, clock=clock, metrics=own_metrics) as clients:
            await scrape(clients)
    (seen,) = site.seen
    assert seen.headers["Authorization"] == "Bearer own"
    assert "Impersonate-User" not in seen.headers


@pytest.mark.parametrize("dot", ["", "."])
async def test_the_way_to_the_api_server(tmp_path, clock, own_metrics, dot):
    """HTTPS_PROXY applies unless NO_PROXY excludes it. A proxy-url has precedence."""
    ca, path = new_ca(), tmp_path / "config"
    async with (
        Site(lambda _: metrics("{}"), ca, "api.example.com") as site,
        ForwardProxy(known={f"api.example.com{dot}": site.port}) as one,
        ForwardProxy(known={f"api.example.com{dot}": site.port}) as two,
    ):
        url = f"https://api.example.com{dot}:6443"

        async def ask(environment, **cluster):
            flag = kubeconfig(path, url, ca, {"token": "t"}, **cluster)
            config, _ = read_config([flag])
            async with open_clients(config, environment, clock=clock, metrics=own_metrics) as found:
                await found.api.get("/api", {}, accept="*/*")
                return str(found.identity.way)

        env = {"HTTPS_PROXY": one.url}
        assert await ask(env) == f"by the proxy {one.url} (HTTPS_PROXY)"
        assert len(one.asked) == 1
        winning = {"proxy-url": two.url}
        for environment in (env, {"HTTPS_PROXY": "socks5://p"}, env | {"NO_PROXY": "*"}):
            assert await ask(environment, **winning) == f"by the proxy {two.url} (proxy-url)"
        assert (len(one.asked), len(two.asked)) == (1, 3)
        with pytest.raises(UpstreamError, match="host name"):
            await ask(env | {"no_proxy": "example.com."[: 11 + len(dot)]})
        with pytest.raises(ConfigError, match="HTTPS_PROXY: SOCKS is not supported"):
            await ask({"HTTPS_PROXY": "socks5://p"})
        assert len(one.asked) == 1
    assert all(seen.headers["Authorization"] == "Bearer t" for seen in site.seen)
    assert {seen.headers["Host"] for seen in site.seen} == {f"api.example.com{dot}:6443"}


async def test_the_way_of_a_pod(opened, cluster):
    """In a pod the environment's proxies apply to the API server, but not to kubelets."""
    host = "kubernetes.example.com"
    port = urlsplit(cluster.api.url).port
    async with ForwardProxy(known={host: port}) as forward:
        environ = {"HTTPS_PROXY": forward.url, "KUBERNETES_SERVICE_HOST": host}
        async with opened(environ=environ) as clients:
            with pytest.raises(UpstreamError, match="certificate"):  # it is for other names
                await clients.api.get("/api", {}, accept="*/*")
            assert b"container_" in await scrape(clients)
    assert [target for target, _ in forward.asked] == [f"CONNECT {host}:{port}"]
    with pytest.raises(ConfigError, match="HTTPS_PROXY: SOCKS"):
        async with opened(environ=environ | {"HTTPS_PROXY": "socks5://p"}):
            pass
