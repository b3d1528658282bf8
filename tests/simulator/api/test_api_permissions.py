"""Permissions in the simulated API server: unknown callers, forbidden requests and reviews."""

import pytest

from kmproxy.simulator.authority import SERVICE_ACCOUNT
from tests.support.api_client import NAMESPACES, get


async def test_unauthenticated(cluster, session):
    """No token or a wrong one is 401 with a Status; the plain listener asks for none."""
    for authorization in ("Bearer wrong", ""):
        async with session.get(NAMESPACES, headers={"Authorization": authorization}) as answer:
            assert (answer.status, (await answer.json())["message"]) == (401, "Unauthorized")
            assert "WWW-Authenticate" not in answer.headers
    assert cluster.api.requests[-1].path == NAMESPACES


@pytest.mark.parametrize(
    ("verb", "resource", "path", "message"),
    [
        (
            "list",
            "namespaces",
            NAMESPACES,
            (
                'namespaces is forbidden: User "{}" cannot list resource "namespaces" in API group '
                '"" at the cluster scope'
            ),
        ),
        (
            "watch",
            "namespaces",
            f"{NAMESPACES}?watch=true",
            (
                'namespaces is forbidden: User "{}" cannot watch resource "namespaces" in API group '
                '"" at the cluster scope'
            ),
        ),
        (
            "get",
            "namespaces",
            f"{NAMESPACES}/a",
            (
                'namespaces "a" is forbidden: User "{}" cannot get resource "namespaces" in API '
                'group "" in the namespace "a"'
            ),
        ),
        (
            "get",
            "nodes/proxy",
            "/api/v1/nodes/node-a/proxy/metrics",
            (
                'nodes "node-a" is forbidden: User "{}" cannot get resource "nodes/proxy" in API '
                'group "" at the cluster scope'
            ),
        ),
    ],
)
async def test_forbidden(session, api, verb, resource, path, message):
    """What is denied is 403 in the API server's words, until it is allowed again."""
    api.deny(verb, resource)
    status, error = await get(session, path)
    assert (status, error["reason"]) == (403, "Forbidden")
    assert error["message"] == message.format(SERVICE_ACCOUNT)
    api.allow(verb, resource)
    async with session.get(path) as answer:
        assert answer.status == 200


async def post(session, path, spec):
    """Return status code and `status` of a review."""
    async with session.post(path, json={"spec": spec}) as answer:
        document = await answer.json()
        return answer.status, document["status"]


async def test_reviews(cluster, session):
    """Reviews are answered from the tokens and rules that requests are checked by."""
    token = cluster.authority.issue("ann", groups=("team-a",), audiences=("kmproxy",))
    tokens = "/apis/authentication.k8s.io/v1/tokenreviews"
    _, status = await post(session, tokens, {"token": token, "audiences": ["kmproxy", "other"]})
    assert (status["authenticated"], status["audiences"]) == (True, ["kmproxy"])
    assert status["user"]["username"] == "ann"
    assert status["user"]["groups"] == ["system:authenticated", "team-a"]
    _, status = await post(session, tokens, {"token": token})
    assert "authenticated" not in status
    subjects = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    what = {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    spec = {"user": "ann", "groups": ["team-a"], **what}
    assert await post(session, subjects, spec) == (201, {"allowed": False})
    cluster.api.allow("get", "/metrics", user="team-a")
    assert (await post(session, subjects, spec))[1]["allowed"]
    own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    what = {"verb": "get", "resource": "nodes", "subresource": "proxy"}
    assert (await post(session, own, {"resourceAttributes": what}))[1]["allowed"]
    cluster.api.deny("create", "tokenreviews")
    async with session.post(tokens, json={"spec": {}}) as answer:
        assert "tokenreviews.authentication.k8s.io is forbidden" in await answer.text()
