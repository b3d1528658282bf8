"""The preflight's permissions: missing and needless permissions have rows of their own."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from kmproxy.check.permissions import is_allowed
from kmproxy.errors import UpstreamError
from kmproxy.kube.permissions import NODE_METRICS
from kmproxy.simulator.api import ApiFault
from tests.support.preflight import SURPLUS, message, results, to_add


class Reviewing:
    """An API server that answers every review with this."""

    def __init__(self, body):
        self.body = body

    async def post(self, path, document):
        assert path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert document["spec"] == {"resourceAttributes": NODE_METRICS.attributes()}
        return self.body


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ('{"allowed": true}', True),
        ('{"allowed": false}', False),
        ('{"allowed": true, "denied": true}', False),
        ('{"allowed": false, "reason": "no opinion"}', False),
        ("{}", False),
    ],
)
async def test_what_a_review_says(status, allowed):
    """A right is granted if it is allowed and not denied."""
    api = Reviewing(f'{{"kind": "SelfSubjectAccessReview", "status": {status}}}'.encode())
    assert await is_allowed(api, NODE_METRICS) is allowed


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 100000])
async def test_what_is_no_review(body):
    """An unreadable review is an API server error, neither yes nor no."""
    with pytest.raises(UpstreamError, match="is not an access review"):
        await is_allowed(Reviewing(body), NODE_METRICS)


WAYS = {
    "direct": ((), [("list", "namespaces"), ("watch", "namespaces"), ("get", "nodes/metrics")]),
    "every node": (("--all-nodes",), [("get", "nodes/metrics"), ("get", "nodes")]),
    "through": (("THROUGH", "--node-name-or-ip=node-a"), [("get", "nodes/proxy")]),
}


@pytest.mark.parametrize(
    ("flags", "verb", "resource"),
    [
        pytest.param(flags, *denied, id=f"{way}: {' '.join(denied)}")
        for way, (flags, permissions) in WAYS.items()
        for denied in permissions
    ],
)
async def test_a_permission_that_is_missing(preflight, cluster, flags, verb, resource):
    """It fails. With the shown rule granted, the check passes."""
    api = urlsplit(cluster.api.url)
    flags = [each.replace("THROUGH", f"--kube-apiserver=127.0.0.1:{api.port}") for each in flags]
    if "--all-nodes" in flags:
        flags.append("--node-name-or-ip=node-a")
        cluster.api.allow("get", "nodes")
    if len(flags) > 1 and "apiserver" in flags[0]:
        cluster.api.allow("get", "nodes/proxy")
    cluster.api.deny(verb, resource)
    report, shown = await preflight.run(*flags)
    assert not report.ok
    subject = next(each for each in results(report) if f"{each} ".startswith(f"{verb} {resource} "))
    assert results(report)[subject] == "failed"
    rules = to_add(shown)
    assert rules == [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]
    assert rules == report.document()["rules_to_add"]
    for rule in rules:
        for granted in rule["verbs"]:
            for each in rule["resources"]:
                cluster.api.allow(granted, each)
    report, shown = await preflight.run(*flags)
    assert report.ok, shown


@pytest.mark.parametrize(
    ("verb", "resource"), [*SURPLUS, ("create", "pods/exec"), ("list", "secrets")]
)
async def test_a_permission_too_many(preflight, cluster, verb, resource):
    """A needless permission is a warning that names its danger, not a failure."""
    cluster.api.allow(verb, resource)
    report, _ = await preflight.run()
    assert report.ok
    assert results(report, but=("ok",)) == {f"{verb} {resource}": "warning"}
    assert message(report, f"{verb} {resource}").startswith("granted but not needed: ")
    if resource == "nodes/proxy":
        assert "run commands in every pod" in message(report, f"{verb} {resource}")


async def test_every_permission(preflight, cluster):
    """A cluster admin gets one warning, not one per permission."""
    cluster.api.allow("*", "*")
    for verb, resource in SURPLUS:
        cluster.api.allow(verb, resource)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"* *": "warning"}


async def test_the_namespaces_cannot_be_listed(preflight, cluster):
    """The kubelet is still tried, and its samples have no labels."""
    cluster.api.deny("list", "namespaces")
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {
        "list namespaces": "failed",
        "namespaces": "failed",
        "metrics": "warning",
    }
    assert "resources [namespaces]" in message(report, "namespaces")
    assert report.namespaces is None
    assert report.metrics.samples > 0
    assert report.metrics.examples == ()


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"fault": ApiFault.GARBAGE}, "the API server's answer is not an access review"),
        ({"fault": ApiFault.STATUS, "status": 403, "message": "planted"}, "answered 403 Forbidden"),
        (
            {"fault": ApiFault.STATUS, "status": 500, "message": "planted"},
            "answered 500 InternalError",
        ),
    ],
)
async def test_reviews_that_fail(preflight, cluster, needs, words):
    """A failed review is neither yes nor no. The API server's text is not repeated."""
    cluster.api.fail("self review", needs.pop("fault"), **needs)
    report, shown = await preflight.run()
    assert words in message(report, "access reviews")
    assert results(report)["get nodes/metrics"] == "skipped"
    assert "planted" not in shown
