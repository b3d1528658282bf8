"""The ways out of the process: which are made, and of what."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web

from kmproxy.cli.read import read_config
from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.tls import LOOK_AGAIN
from kmproxy.daemon.clients import open_clients
from kmproxy.errors import ConfigError, CredentialError, UpstreamError
from kmproxy.simulator.authority import CERTIFICATE_USER
from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.endpoints import CADVISOR
from tests.conftest import credential_failures
from tests.support.sites import ForwardProxy, Site, metrics, new_ca, pem_of


@pytest.fixture
def opened(cluster, tmp_path, clock, own_metrics):
    """A function that opens the clients of a pod that was given flags, and a `kubelet` section."""
    cluster.write_service_account(tmp_path)
    api, kubelet = urlsplit(cluster.api.url), cluster.kubelets["node-a"]
    environment = {
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    defaults = (f"--service-account-dir={tmp_path}", f"--node-port={kubelet.port}")

    def open_them(*flags, environ=None, **section):
        if section:
            (tmp_path / "k.yaml").write_text(yaml.safe_dump({"kubelet": section}))
            flags = (*flags, f"--config={tmp_path / 'k.yaml'}")
        config, _ = read_config([*defaults, *flags])
        return open_clients(config, environment | (environ or {}), clock=clock, metrics=own_metrics)

    return open_them


async def all_nodes(clients):
    """Every node that the API server lists."""
    return [node async for some in clients.nodes.list_all() for node in some]


async def test_direct(opened, cluster):
    """The kubelet itself is asked, and there is no directory of nodes that are not served."""
    async with opened() as clients:
        assert clients.nodes is None
        async with clients.kubelet.fetch(clients.kubelet.configured, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert cluster.api.requests == []
    assert len(cluster.kubelets["node-a"].requests) == 1


async def test_through_the_api_server(opened, cluster):
    """The node proxy is asked, verified by the cluster's CA; nodes are found by name."""
    port = urlsplit(cluster.api.url).port
    flags = (f"--kube-apiserver=127.0.0.1:{port}", "--all-nodes")
    async with opened(*flags) as clients:
        node = await clients.nodes.find("node-b")
        async with clients.kubelet.fetch(node, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert len(cluster.api.requests) == 2


async def test_a_ca_that_is_none(opened, tmp_path):
    """It is a mistake in the configuration, before anything is asked."""
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConfigError, match="--kubelet-ca-file"):
        async with opened(f"--kubelet-ca-file={tmp_path / 'ca'}"):
            pass


async def test_a_server_name_that_changes(cluster, tmp_path, clock, own_metrics):
    """A kubeconfig's is followed as all of it is: its server is verified by the new one."""
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
    """A kubeconfig that leads elsewhere does so at once: its token is not shown to the old one."""
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
    """What is read after a 401 is for the new server: the old one is not shown it."""
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
            with pytest.raises(CredentialError, match="leads to another server"):
                await all_nodes(clients)
            with pytest.raises(UpstreamError):  # {} is no list
                await all_nodes(clients)
        told = [[request.headers["Authorization"] for request in site.seen] for site in (old, new)]
    assert told == [["Bearer one"], ["Bearer two"]]


async def test_a_plugin_that_gives_certificates(tmp_path, clock, own_metrics):
    """A 401 makes it run again: nothing else tells that its certificate has ended."""
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


READER = "system:serviceaccount:monitoring:kubelet-reader"


async def scrape(clients):
    """The bytes of the configured node's metrics."""
    async with clients.kubelet.fetch(clients.kubelet.configured, CADVISOR) as exposition:
        return b"".join([piece async for piece in exposition.pieces])


@pytest.fixture
def reader(cluster):
    """A token of somebody else, who may read the kubelets' metrics."""
    cluster.authority.allow("get", "nodes/metrics", user=READER)
    return cluster.authority.issue(READER)


@pytest.fixture
def asked(cluster):
    """A function: the header by which node-a was last told who asks."""

    def last():
        return cluster.kubelets["node-a"].requests[-1].headers.get("Authorization")

    return last


async def test_a_section_that_says_nothing(opened, cluster, asked):
    """We are who we are anyway: the pod."""
    async with opened(follow_redirects=False) as clients:
        assert b"container_" in await scrape(clients)
    assert asked() == f"Bearer {cluster.token}"


@pytest.mark.parametrize("how", ["text", "file", "authorization"])
async def test_a_bearer_token(opened, reader, asked, mount, how):
    """The kubelet is asked with it, and not with the pod's own."""
    mount.swap(token=reader)
    section = {
        "text": {"bearer_token": reader},
        "file": {"bearer_token_file": str(mount.path / "token")},
        "authorization": {"authorization": {"credentials_file": str(mount.path / "token")}},
    }[how]
    async with opened(**section) as clients:
        assert b"container_" in await scrape(clients)
        assert asked() == f"Bearer {reader}"
        assert reader not in repr(clients)
        assert await clients.identity.authorization() != f"Bearer {reader}"


async def test_a_bearer_token_rotates(opened, cluster, reader, asked, mount, clock, own_metrics):
    """It is used a minute later, or at once when the old one is refused; a bad one never."""
    mount.swap(token=reader)
    second, third = cluster.authority.issue(READER), cluster.authority.issue(READER)
    async with opened(bearer_token_file=str(mount.path / "token")) as clients:
        await scrape(clients)
        mount.swap(token=second)
        await scrape(clients)
        assert asked() == f"Bearer {reader}"
        clock.now += TOKEN_AGE
        await scrape(clients)
        assert asked() == f"Bearer {second}"
        mount.swap()
        clock.now += TOKEN_AGE
        await scrape(clients)
        assert asked() == f"Bearer {second}"
        assert credential_failures(own_metrics, "token") == 1
        mount.swap(token=third)
        cluster.authority.revoke(second)
        await scrape(clients)
        assert asked() == f"Bearer {third}"


@pytest.mark.parametrize("inline", [False, True])
async def test_a_client_certificate(opened, cluster, asked, mount, inline):
    """It says who we are: no token is sent beside it."""
    cert, key = pem_of(cluster._authorities.issue_cert(common_name=CERTIFICATE_USER))
    mount.swap(crt=cert, key=key)
    names = {"cert_file": str(mount.path / "crt"), "key_file": str(mount.path / "key")}
    tls = {"cert": cert.decode(), "key": key.decode()} if inline else names
    async with opened(tls_config=tls) as clients:
        assert b"container_" in await scrape(clients)
    assert asked() is None


async def test_a_client_certificate_rotates(opened, cluster, mount, clock, own_metrics):
    """The kubelet sees the new one a minute later; until then, and if it is bad, the old one."""
    users = ["system:node:one", "system:node:two"]
    pairs = [pem_of(cluster._authorities.issue_cert(common_name=user)) for user in users]
    cluster.authority.allow("get", "nodes/metrics", user=users[0])
    mount.swap(crt=pairs[0][0], key=pairs[0][1])
    tls = {"cert_file": str(mount.path / "crt"), "key_file": str(mount.path / "key")}
    async with opened(tls_config=tls) as clients:
        await scrape(clients)
        mount.swap(crt=pairs[1][0], key=pairs[0][1])
        clock.now += LOOK_AGAIN
        await scrape(clients)
        assert credential_failures(own_metrics, "certificate") == 1
        mount.swap(crt=pairs[1][0], key=pairs[1][1])
        cluster.authority.deny("get", "nodes/metrics", user=users[0])
        cluster.authority.allow("get", "nodes/metrics", user=users[1])
        with pytest.raises(UpstreamError, match="forbids"):
            await scrape(clients)
        clock.now += LOOK_AGAIN
        await scrape(clients)


async def test_a_ca_rotates(opened, mount, clock):
    """A kubelet whose certificate is of the new CA is trusted a minute later."""
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
    """A CA as text and a server name, verified; without verification anything is taken."""
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


async def test_basic_auth(opened, mount, clock):
    """As a proxy before the kubelet may want it; user and password rotate on disk."""
    known = {"password": "pass: word"}

    def answer(seen):
        pair = f"\u00fcser:{known['password']}".encode()
        good = "Basic " + base64.b64encode(pair).decode()
        return metrics() if seen.headers.get("Authorization") == good else web.Response(status=401)

    ca = new_ca()
    mount.swap(user="\u00fcser\n", password="pass: word\n")
    section = {
        "basic_auth": {
            "username_file": str(mount.path / "user"),
            "password_file": str(mount.path / "password"),
        },
        "tls_config": {"ca": ca.cert_pem.bytes().decode()},
    }
    async with Site(answer, ca) as site:
        flags = ("--node-name-or-ip=127.0.0.1", f"--node-port={site.port}")
        async with opened(*flags, **section) as clients:
            assert await scrape(clients)
            known["password"] = "new"
            mount.swap(user="\u00fcser", password="new")
            clock.now += TOKEN_AGE
            assert await scrape(clients)
            assert len(site.seen) == 2
            known["password"] = "newer"
            with pytest.raises(UpstreamError, match="does not accept our credentials"):
                await scrape(clients)


async def test_oauth2(opened, cluster, reader, asked, own_metrics):
    """The kubelet is asked with a token of the endpoint; one that it refuses is replaced."""
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
    """It is verified, by the system's CAs or those that are given: none gets the secret who lies."""
    tls = {"tls_config": {"ca": new_ca().cert_pem.bytes().decode()}} if named else {}
    async with Site(lambda _: web.json_response({"access_token": "t"}), new_ca()) as site:
        url = site.url.replace("https", scheme)
        section = {"client_id": "c", "client_secret": "s", "token_url": url} | tls
        async with opened(oauth2=section) as clients:
            with pytest.raises(UpstreamError, match="endpoint's certificate does not verify"):
                await scrape(clients)
        assert site.seen == []


async def test_oauth2_through_a_proxy(opened, reader):
    """The token endpoint has a proxy and a server name of its own."""
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
    """The kubelet is reached through it, by name, which only the proxy must know."""
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
    """HTTPS_PROXY and NO_PROXY are taken only where the section says so."""
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
    """Neither a proxy nor a password is taken from it unasked."""
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
    """Refused by default; followed where the section says so, to another kubelet as nobody."""
    first, second = (cluster.kubelets[name] for name in ("node-a", "node-b"))
    first.fail(Fault.REDIRECT, location=f"{second.url}/metrics/cadvisor")
    async with opened(follow_redirects=False) as clients:
        with pytest.raises(UpstreamError, match="redirect"):
            await scrape(clients)
    assert second.requests == []
    async with opened(follow_redirects=True) as clients:
        with pytest.raises(UpstreamError, match="does not accept our credentials"):
            await scrape(clients)
    assert "Authorization" not in second.requests[-1].headers
    first.recover()
    first.fail(Fault.REDIRECT, path="/metrics/cadvisor", location="/metrics/probes")
    async with opened(follow_redirects=True) as clients:
        assert await scrape(clients)
    assert asked() == f"Bearer {cluster.token}"


async def test_a_client_certificate_is_not_shown_elsewhere(opened, cluster):
    """A redirect to another server is followed without it."""
    ca = cluster._authorities
    cert, key = (part.decode() for part in pem_of(ca.issue_cert(common_name=CERTIFICATE_USER)))
    async with Site(lambda _: metrics(), ca) as other:
        cluster.kubelets["node-a"].fail(Fault.REDIRECT, location=other.url)
        section = {"tls_config": {"cert": cert, "key": key}, "follow_redirects": True}
        async with opened(**section) as clients:
            assert await scrape(clients)
    assert [seen.certificate for seen in other.seen] == [None]


async def test_a_token_that_nobody_waits_for(opened, own_metrics):
    """At the end its request is given up, which is no failure, and no task is left."""
    arrived = asyncio.Event()

    async def hang(_):
        arrived.set()
        await asyncio.Event().wait()

    def asking():
        return [task for task in asyncio.all_tasks() if "._ask" in repr(task.get_coro())]

    async with Site(hang) as site:
        section = {"client_id": "c", "client_secret": "s", "token_url": site.url}
        async with opened(oauth2=section) as clients:
            waiting = asyncio.create_task(scrape(clients))
            await arrived.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert asking()
        assert not asking()
    assert credential_failures(own_metrics, "oauth2") == 0


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"bearer_token_file": "/nowhere/token"}, "kubelet.bearer_token_file /nowhere/token: No such file"),
        ({"bearer_token": "planted secret"}, "kubelet.bearer_token: it is not a token"),
        ({"authorization": {"credentials": "planted\nsecret"}}, "kubelet.authorization: it is not a token"),
        ({"basic_auth": {"username": "planted:", "password": ""}}, "kubelet.basic_auth.username: it is not"),
        ({"basic_auth": {"username": "u", "password": "planted\n"}}, "kubelet.basic_auth.password: it is not"),
        ({"tls_config": {"ca_file": "/nowhere/ca"}}, "kubelet.tls_config: the kubelets' CA: CA /nowhere/ca: No such file"),
        ({"tls_config": {"ca": "planted"}}, "kubelet.tls_config: the kubelets' CA: CA <secret>: "),
        ({"tls_config": {"cert": "planted", "key": "planted"}}, "kubelet.tls_config: the kubelets' CA: client certificate"),
        (
            {"oauth2": {"client_id": "c", "client_secret_file": "/nowhere/s", "token_url": "https://a"}},
            "kubelet.oauth2.client_secret /nowhere/s: No such file",
        ),
        (
            {"oauth2": {"client_id": "c", "client_secret": "s", "token_url": "https://a", "tls_config": {"ca_file": "/nowhere/ca"}}},
            "kubelet.oauth2.tls_config: ",
        ),
    ],
)  # fmt: skip
async def test_a_section_that_cannot_be_used(opened, section, says):
    """It is a mistake in the configuration, before anything is asked; nothing secret is shown."""
    with pytest.raises(ConfigError) as raised:
        async with opened(**section):
            pass
    (problem,) = raised.value.problems
    assert problem.startswith(says)
    assert "planted" not in problem


async def test_a_ca_that_is_none_beside_a_section(opened):
    """It is the flag that is named, where it is the flag that names it."""
    with pytest.raises(ConfigError, match="--kubelet-ca-file: "):
        async with opened("--kubelet-ca-file=/nowhere/ca", follow_redirects=True):
            pass


async def test_a_proxy_of_the_environment_that_is_none(opened):
    """It is named, and not shown."""
    environ = {"https_proxy": "socks5://planted@proxy"}
    with pytest.raises(ConfigError, match="proxy_from_environment: https_proxy: ") as raised:
        async with opened(proxy_from_environment=True, environ=environ):
            pass
    assert "planted" not in str(raised.value)


def kubeconfig(path, url, ca, user, **cluster):
    """The flag of a kubeconfig that leads there."""
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
    """The API server and its node proxy are asked as somebody else; a kubelet itself is not asked."""
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
            with pytest.raises(CredentialError, match="which no kubelet knows"):
                await scrape(clients)
        assert len(site.seen) == 1


async def test_impersonation_beside_a_credential_for_kubelets(tmp_path, clock, own_metrics):
    """A kubelet section with a credential of its own is for the kubelet; nobody is impersonated."""
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
    """HTTPS_PROXY leads there unless NO_PROXY says otherwise; proxy-url wins; a dot is no name's."""
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
    """The environment's proxies hold in a pod too, but not for kubelets."""
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
