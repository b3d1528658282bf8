"""Errors of the API server, and bounds on its answers."""

from __future__ import annotations

import asyncio
import json

import pytest

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube import apiserver
from kmproxy.simulator.answers import ApiFault

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def test_get(api):
    """The body of a 200 is returned complete."""
    body = await api.get("/api/v1/namespaces", {"limit": "2"}, accept="application/json")
    assert body.count(b'"uid"') == 2


@pytest.mark.parametrize(
    ("needs", "code", "reason", "retry_after"),
    [
        ({"status": 500, "reason": "InternalError"}, 500, "InternalError", None),
        (
            {"status": 429, "reason": "TooManyRequests", "retry_after": 3},
            429,
            "TooManyRequests",
            3.0,
        ),
        ({"status": 410, "reason": "Expired"}, 410, "Expired", None),
    ],
)
async def test_an_error_status(api, cluster, needs, code, reason, retry_after):
    """A Status is raised with its code, its reason and its requested pause."""
    cluster.api.fail("list", ApiFault.STATUS, **needs)
    with pytest.raises(ApiError) as raised:
        await api.get("/api/v1/namespaces", {}, accept="application/json")
    error = raised.value
    assert (error.code, error.reason, error.retry_after) == (code, reason, retry_after)


@pytest.mark.parametrize("status", [503, 410])
async def test_an_error_with_a_large_page(api, cluster, status):
    """An error with a large body keeps its status, and no more than a Status is held."""
    page = "x" * (2 * apiserver.MAX_STATUS)
    cluster.api.fail("list", ApiFault.STATUS, status=status, reason="Planted", message=page)
    with pytest.raises(ApiError) as raised:
        await api.get("/api/v1/namespaces", {}, accept="application/json")
    assert (raised.value.code, raised.value.reason) == (status, f"http_{status}")
    assert len(str(raised.value)) < 100


async def test_a_refused_permission(api, cluster):
    """403 is raised as 403."""
    cluster.api.deny("list", "namespaces")
    with pytest.raises(ApiError) as raised:
        await api.get("/api/v1/namespaces", {}, accept="application/json")
    assert (raised.value.code, raised.value.reason) == (403, "Forbidden")


async def test_post(api, cluster):
    """The document is sent as JSON, and the answer returned, though its status is 201."""
    attributes = {"verb": "list", "resource": "namespaces"}
    for allowed in (True, False):
        body = await api.post(REVIEW, {"spec": {"resourceAttributes": attributes}})
        review = json.loads(body)
        assert review["spec"] == {"resourceAttributes": attributes}
        assert review["status"]["allowed"] is allowed
        cluster.api.deny("list", "namespaces")
    assert [record.method for record in cluster.api.requests] == ["POST", "POST"]


async def test_a_post_after_the_token_was_rotated(api, cluster, tmp_path):
    """After a 401 the document is sent again, with the token read again."""
    cluster.rotate_token()
    cluster.write_service_account(tmp_path)
    attributes = {"verb": "list", "resource": "namespaces"}
    body = await api.post(REVIEW, {"spec": {"resourceAttributes": attributes}})
    assert json.loads(body)["status"]["allowed"]
    assert len(cluster.api.requests) == 2


async def test_a_post_that_is_refused(api, cluster):
    """Other statuses than 200 and 201 are raised, as for get."""
    cluster.api.deny("create", "tokenreviews")
    with pytest.raises(ApiError) as raised:
        await api.post("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "t"}})
    assert (raised.value.code, raised.value.reason) == (403, "Forbidden")


async def test_a_list_that_is_cut(api, cluster):
    """A list that was cut is an error."""
    cluster.api.fail("list", ApiFault.CUT)
    with pytest.raises(UpstreamError) as raised:
        await api.get("/api/v1/namespaces", {}, accept="application/json")
    assert raised.value.reason == "truncated"


async def test_an_answer_without_end(api, monkeypatch):
    """The held bytes of an answer are bounded."""
    monkeypatch.setattr(apiserver, "MAX_BODY", 100)
    with pytest.raises(ApiError, match="over 100 bytes"):
        await api.get("/api/v1/namespaces", {}, accept="application/json")


@pytest.mark.parametrize("fault", [ApiFault.HANG, ApiFault.SILENT])
async def test_a_list_that_falls_silent(api, cluster, monkeypatch, fault):
    """A list without bytes for too long times out, before its answer or within it."""
    monkeypatch.setattr(apiserver, "REQUEST_TIMEOUT", 0.1)
    verb = "list" if fault is ApiFault.HANG else "watch"
    cluster.api.fail(verb, fault)
    params = {"watch": "true"} if verb == "watch" else {}
    asked = api.get("/api/v1/namespaces", params, accept="application/json")
    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(asked, 10)
    assert raised.value.reason == "timeout"


async def test_a_stream_falls_silent(api, cluster):
    """A watch without bytes for too long times out."""
    cluster.api.fail("watch", ApiFault.SILENT)

    async def read():
        stream = api.stream("/api/v1/namespaces", {"watch": "true"}, accept="*/*", silence=0.1)
        async with stream as pieces:
            return [piece async for piece in pieces]

    with pytest.raises(UpstreamError) as raised:
        await read()
    assert raised.value.reason == "timeout"
