"""Credentials of the `kubelet` section: only kubelets get them, and a new file is used soon."""

from __future__ import annotations

import asyncio
import base64

import pytest
from aiohttp import web

from kmproxy.client.credentials import TOKEN_AGE
from kmproxy.client.tls import LOOK_AGAIN
from kmproxy.errors import ConfigError, UpstreamError
from kmproxy.simulator.authority import CERTIFICATE_USER
from kmproxy.simulator.kubelet import Fault
from tests.conftest import credential_failures
from tests.support.kubelet_reader import READER, scrape
from tests.support.sites import Site, metrics, new_ca, pem_of


async def test_a_section_that_says_nothing(opened, cluster, asked):
    """An empty section leaves the pod's identity."""
    async with opened(follow_redirects=False) as clients:
        assert b"container_" in await scrape(clients)
    assert asked() == f"Bearer {cluster.token}"


@pytest.mark.parametrize("how", ["text", "file", "authorization"])
async def test_a_bearer_token(opened, reader, asked, mount, how):
    """The kubelet gets this token instead of the pod's own."""
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
    """A new token is used within a minute, or at once after a 401. A bad one never is."""
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
    """The certificate is the identity: no token is sent beside it."""
    cert, key = pem_of(cluster._authorities.issue_cert(common_name=CERTIFICATE_USER))
    mount.swap(crt=cert, key=key)
    names = {"cert_file": str(mount.path / "crt"), "key_file": str(mount.path / "key")}
    tls = {"cert": cert.decode(), "key": key.decode()} if inline else names
    async with opened(tls_config=tls) as clients:
        assert b"container_" in await scrape(clients)
    assert asked() is None


async def test_a_client_certificate_rotates(opened, cluster, mount, clock, own_metrics):
    """A new certificate is used within a minute. A bad one never is."""
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


async def test_basic_auth(opened, mount, clock):
    """A proxy before the kubelet may need it. User and password rotate on disk."""
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
            with pytest.raises(UpstreamError, match="does not accept kmproxy's credentials"):
                await scrape(clients)


async def test_a_client_certificate_is_not_shown_elsewhere(opened, cluster):
    """A redirect to another server is followed without the certificate."""
    ca = cluster._authorities
    cert, key = (part.decode() for part in pem_of(ca.issue_cert(common_name=CERTIFICATE_USER)))
    async with Site(lambda _: metrics(), ca) as other:
        cluster.kubelets["node-a"].fail(Fault.REDIRECT, location=other.url)
        section = {"tls_config": {"cert": cert, "key": key}, "follow_redirects": True}
        async with opened(**section) as clients:
            assert await scrape(clients)
    assert [seen.certificate for seen in other.seen] == [None]


async def test_a_token_that_nobody_waits_for(opened, own_metrics):
    """At the end its request is cancelled: not a failure, and no task is left."""
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
        ({"bearer_token": "planted secret"}, "kubelet.bearer_token: the text is not a valid token"),
        ({"authorization": {"credentials": "planted\nsecret"}}, "kubelet.authorization: the text is not a valid token"),
        ({"basic_auth": {"username": "planted:", "password": ""}}, "kubelet.basic_auth.username: the text is not"),
        ({"basic_auth": {"username": "u", "password": "planted\n"}}, "kubelet.basic_auth.password: the text is not"),
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
    """A configuration error before any request, which shows no secret."""
    with pytest.raises(ConfigError) as raised:
        async with opened(**section):
            pass
    (problem,) = raised.value.problems
    assert problem.startswith(says)
    assert "planted" not in problem
