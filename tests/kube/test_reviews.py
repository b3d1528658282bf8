"""Reviews: the requests, the answers that count as yes, and how long they hold."""

from __future__ import annotations

import json

import pytest

from kmproxy.config.types import Resource
from kmproxy.errors import UpstreamError
from kmproxy.kube.reviews import (
    ACCEPTED_FOR,
    MAX_TOKEN,
    REJECTED_FOR,
    Caller,
    LogThrottle,
    Question,
    TokenVerdict,
    access_key,
    access_review,
    bearer_token,
    is_namespace,
    read_access_review,
    read_token_review,
    token_key,
    token_review,
)

SECRET = b"k" * 32
PODS = Resource("pods", "metrics", "metrics.k8s.io")
ANN = Caller("ann", "u-1", ("g", "h"), (("scopes", ("a", "b")),))


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        (["Bearer abc"], "abc"),
        (["bearer  abc "], "abc"),
        (["BEARER a.b-c_d~e+f/g=="], "a.b-c_d~e+f/g=="),
        (["Bearer " + "a" * MAX_TOKEN], "a" * MAX_TOKEN),
        (["Bearer " + "a" * (MAX_TOKEN + 1)], None),
        ([], None),
        ([""], None),
        (["Bearer"], None),
        (["Bearer "], None),
        (["Basic YTpi"], None),
        (["abc"], None),
        (["Bearer a b"], None),
        (["Bearer a\tb"], None),
        (["Bearer a,b"], None),
        (['Bearer "a"'], None),
        (["Bearer ä"], None),
        (["Bearer a\udcff"], None),
        (["Bearer a", "Bearer a"], None),
        (["Bearer a", "Basic b"], None),
    ],
)
def test_bearer_token(headers, token):
    """One header with the scheme in any case and a well-formed token; else None."""
    assert bearer_token(headers) == token


def test_a_token_review():
    """The TokenReview has the token, and the audiences if there are any."""
    assert token_review("t", ()) == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t"},
    }
    assert token_review("t", ("a", "b"))["spec"] == {"token": "t", "audiences": ["a", "b"]}


@pytest.mark.parametrize(
    ("question", "attributes", "text"),
    [
        (
            Question("/metrics"),
            {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}},
            "get /metrics",
        ),
        (
            Question(resource=Resource("nodes", "metrics"), name="node-a"),
            {
                "resourceAttributes": {
                    "verb": "get",
                    "resource": "nodes",
                    "subresource": "metrics",
                    "name": "node-a",
                }
            },
            "get nodes/metrics 'node-a'",
        ),
        (
            Question(resource=PODS, namespace="payments"),
            {
                "resourceAttributes": {
                    "verb": "get",
                    "group": "metrics.k8s.io",
                    "resource": "pods",
                    "subresource": "metrics",
                    "namespace": "payments",
                }
            },
            "get pods/metrics.metrics.k8s.io in namespace 'payments'",
        ),
    ],
)
def test_an_access_review(question, attributes, text):
    """The SubjectAccessReview has all facts of the TokenReview, and the wanted right."""
    review = access_review(ANN, question)
    assert (review["apiVersion"], review["kind"]) == (
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
    )
    assert review["spec"] == {
        "user": "ann",
        "uid": "u-1",
        "groups": ["g", "h"],
        "extra": {"scopes": ["a", "b"]},
        **attributes,
    }
    assert str(question) == text


def body(kind, status):
    """An answer of the API server."""
    return json.dumps({"kind": kind, "status": status}).encode()


USER = {"username": "ann", "uid": "u", "groups": ["g"], "extra": {"b": ["2"], "a": ["1", "0"]}}
ACCEPTED = Caller("ann", "u", ("g",), (("a", ("1", "0")), ("b", ("2",))))


@pytest.mark.parametrize(
    ("audiences", "status", "verdict"),
    [
        ((), {"authenticated": True, "user": USER}, TokenVerdict(ACCEPTED, ACCEPTED_FOR)),
        (
            ("a", "b"),
            {"authenticated": True, "user": USER, "audiences": ["b"]},
            TokenVerdict(ACCEPTED, ACCEPTED_FOR),
        ),
        (
            ("a",),
            {"authenticated": True, "user": USER, "audiences": ["b"]},
            TokenVerdict(None, REJECTED_FOR),
        ),
        (
            ("a",),
            {"authenticated": True, "user": USER, "audiences": []},
            TokenVerdict(None, REJECTED_FOR),
        ),
        (("a",), {"authenticated": True, "user": USER}, TokenVerdict(None, REJECTED_FOR)),
        ((), {"user": USER}, TokenVerdict(None, REJECTED_FOR)),
        ((), {"authenticated": False, "user": USER}, TokenVerdict(None, REJECTED_FOR)),
        ((), {}, TokenVerdict(None, REJECTED_FOR)),
        ((), {"authenticated": False, "error": "the issuer is away"}, TokenVerdict(None, 0.0)),
    ],
)
def test_what_a_token_review_says(audiences, status, verdict):
    """Accepted only if the review says so, for a wanted audience. Errors are not remembered."""
    assert read_token_review(body("TokenReview", status), audiences) == verdict


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": False}, False),
        ({"allowed": False, "denied": True}, False),
        ({"allowed": True, "denied": True}, False),
        ({"allowed": True, "evaluationError": "a role is missing"}, True),
    ],
)
def test_what_an_access_review_says(status, allowed):
    """A right is granted if it is allowed and not denied."""
    assert read_access_review(body("SubjectAccessReview", status)) is allowed


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        b'{"kind": "TokenReview"}',
        b'{"kind": "TokenReview", "status": null}',
        b'{"kind": "TokenReview", "status": {"authenticated": "true"}}',
        b'{"kind": "TokenReview", "status": {"authenticated": 1}}',
        b'{"kind": "TokenReview", "status": {"authenticated": true}}',
        b'{"kind": "TokenReview", "status": {"authenticated": true, "user": {"username": ""}}}',
        b'{"kind": "TokenReview", "status": {"authenticated": true, "user": {"username": 7}}}',
        b'{"kind": "SubjectAccessReview", "status": {}}',
        b'{"kind": "SubjectAccessReview", "status": {"allowed": "yes"}}',
        b'{"kind": "Status", "status": {"allowed": true, "authenticated": true}}',
        b'{"kind": "Status", "status": "Failure"}',
    ],
)
def test_an_answer_that_is_none(answer):
    """An unreadable answer is an error, neither yes nor no."""
    for read in (lambda: read_token_review(answer, ()), lambda: read_access_review(answer)):
        with pytest.raises(UpstreamError) as raised:
            read()
        assert raised.value.reason == "garbage"


def test_keys_tell_apart_what_differs():
    """Different questions, callers or tokens have different keys, however the parts are cut."""
    callers = [
        Caller("a"),
        Caller("a", "b"),
        Caller("ab"),
        Caller("a", "", ("b",)),
        Caller("a", "", ("b", "c")),
        Caller("a", "", ("bc",)),
        Caller("a", "", ("b,c",)),
        Caller("a", "", (), (("b", ("c",)),)),
        Caller("a", "", (), (("b", ()), ("c", ()))),
        Caller("a", "1", ("0",)),
        Caller("a", "", ("1", "b")),
        Caller("a", "", (), (("b", ()),)),
    ]
    questions = [
        Question("/a"),
        Question("/b"),
        Question(resource=Resource("a")),
        Question(resource=Resource("a", "b")),
        Question(resource=Resource("a", "", "b")),
        Question(resource=Resource("a"), namespace="b"),
        Question(resource=Resource("a"), name="b"),
    ]
    keys = {access_key(SECRET, caller, question) for caller in callers for question in questions}
    keys |= {token_key(SECRET, token) for token in ("a", "b", "/a")}
    assert len(keys) == len(callers) * len(questions) + 3
    assert token_key(SECRET, "a") != token_key(b"x" * 32, "a")
    assert b"secret" not in token_key(SECRET, "secret")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a", True),
        ("kube-system", True),
        ("0", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        ("*", False),
        ("A", False),
        ("a.b", False),
        ("-a", False),
        ("a-", False),
        ("a\n", False),
        ("a/b", False),
        ("ä", False),
    ],
)
def test_is_namespace(text, valid):
    """The names that the API server accepts for a namespace, without the empty name for all."""
    assert is_namespace(text) is valid


@pytest.mark.parametrize(
    "user",
    [
        {"groups": [f"group-{number}" for number in range(10_000)]},
        {"extra": {"blob": ["x" * (1 << 20)]}},
        {"extra": {f"key-{number}": [] for number in range(2000)}},
        {"uid": "ü" * 70_000},
    ],
)
def test_a_caller_that_is_too_large(user):
    """A caller over the bound is refused, because each of its scrapes would hold all of it."""
    status = {"authenticated": True, "user": {"username": "ann"} | user}
    with pytest.raises(UpstreamError, match="use a service account") as raised:
        read_token_review(body("TokenReview", status), ())
    assert raised.value.reason == "too_large"


def test_the_size_of_a_caller():
    """The size has the texts and the references to them. 600 directory groups fit."""
    small = Caller("ann", "1", ("a", "b"), (("k", ("v", "w")),))
    assert 7 * 50 < small.size < 7 * 100
    groups = [f"CN=group-{number:04},OU=Groups,DC=example,DC=com" for number in range(600)]
    status = {"authenticated": True, "user": {"username": "ann", "groups": groups}}
    caller = read_token_review(body("TokenReview", status), ()).caller
    assert caller.groups == tuple(groups)


def test_quiet():
    """One line per interval for each reason, with the number of lines left out."""
    quiet = LogThrottle(10.0)
    assert quiet.lets("a", 100.0) == 0
    assert quiet.lets("a", 101.0) is None
    assert quiet.lets("a", 109.9) is None
    assert quiet.lets("b", 109.9) == 0
    assert quiet.lets("a", 110.0) == 2
    assert quiet.lets("a", 120.0) == 0
