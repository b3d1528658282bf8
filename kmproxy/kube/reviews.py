"""Reviews: questions to the API server about a caller, its answers, and how long these hold.

Knows TokenReview and SubjectAccessReview. Must not know HTTP, which request led to the review, or
what follows from a verdict. No token is kept here. The key for a token is a digest, which is keyed
with a secret of this process. Times are seconds and are passed in.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from kmproxy.config.types import Resource
from kmproxy.digests import digest
from kmproxy.errors import UpstreamError

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

# These times are the ones of the filters of controller-runtime and kube-rbac-proxy.
ACCEPTED_FOR = 60.0
"""Seconds for which an accepted token is not reviewed again."""
REJECTED_FOR = 30.0
"""Seconds for which a rejected token is not reviewed again, unless the review named an error."""
ALLOWED_FOR = 300.0
"""Seconds for which an allowed question is not asked again."""
DENIED_FOR = 30.0
"""Seconds for which a denied question is not asked again."""

MAX_TOKEN = 16 << 10
"""Characters of the longest token that is read. The token of a service account has about 1,000."""

MAX_REVIEW = 256 << 10
"""The most bytes of the whole answer to a review. The answer repeats the question."""

MAX_CALLER = 64 << 10
"""Bytes of memory of the largest caller that is accepted: 600 groups with names of 50
characters."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, b64token
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

_POINTER, _TUPLE = 8, 48
"""Bytes of a reference in a tuple, and of a tuple without its references."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """The user that the API server named for a token."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def size(self) -> int:
        """The bytes of memory that the caller takes."""
        texts = [self.username, self.uid, *self.groups]
        for key, values in self.extra:
            texts += [key, *values]
        tuples = 2 * len(self.extra) + 3
        return sum(map(sys.getsizeof, texts)) + _POINTER * len(texts) + _TUPLE * tuples


@dataclass(frozen=True, slots=True)
class Question:
    """The question whether a caller may `get` a resource, or a path if no resource is given.

    An empty `namespace` means all namespaces at once. An empty `name` means any object.
    """

    path: str = ""
    resource: Resource | None = None
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """Return the question as text for people."""
        if self.resource is None:
            return f"get {self.path[:200]}"
        name = f" {self.name[:80]!r}" if self.name else ""
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"get {self.resource}{name}{where}"

    def attributes(self) -> dict[str, dict[str, str]]:
        """Return the part of a review's `spec` that names the resource or the path."""
        if self.resource is None:
            return {"nonResourceAttributes": {"path": self.path, "verb": "get"}}
        wanted = {
            "verb": "get",
            "group": self.resource.group,
            "resource": self.resource.resource,
            "subresource": self.resource.subresource,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {"resourceAttributes": {key: value for key, value in wanted.items() if value}}


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """The caller to whom a token belongs, or None if the token was rejected.

    The verdict holds for `holds` seconds. 0 means that it is not remembered.
    """

    caller: Caller | None
    holds: float


def bearer_token(headers: Sequence[str]) -> str | None:
    """Return the token in the Authorization headers of a request, or None.

    It is None unless the request has exactly one such header, the scheme is Bearer, and the rest
    has the form of a token and at most `MAX_TOKEN` characters.
    """
    if len(headers) != 1:
        return None
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.lstrip(" ")
    if scheme.lower() != "bearer" or len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
        return None
    return token


def is_namespace(text: str) -> bool:
    """Tell whether `text` can be the name of a namespace. Only such a name goes into a review."""
    return _NAMESPACE.fullmatch(text) is not None


def token_key(secret: bytes, token: str) -> bytes:
    """Return the key under which the verdict on a token is remembered."""
    return digest(token, key=secret, kind="token")


def access_key(secret: bytes, caller: Caller, question: Question) -> bytes:
    """Return the key of a caller's question. It covers everything that the review holds."""
    extra = [text for key, values in caller.extra for text in (key, str(len(values)), *values)]
    wanted = question.resource or ("", "", "")
    return digest(
        caller.username, caller.uid,
        str(len(caller.groups)), *caller.groups, str(len(caller.extra)), *extra,
        question.path, *wanted, question.namespace, question.name,
        key=secret, kind="access",
    )  # fmt: skip


def token_review(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
    """Return the TokenReview to post."""
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def access_review(caller: Caller, question: Question) -> Mapping[str, Any]:
    """Return the SubjectAccessReview to post."""
    spec: dict[str, Any] = {
        "user": caller.username,
        "uid": caller.uid,
        "groups": list(caller.groups),
        "extra": {key: list(values) for key, values in caller.extra},
        **question.attributes(),
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: list[str] | None = None
    error: str = ""


class _TokenReview(msgspec.Struct):
    kind: str
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool
    denied: bool = False


class _AccessReview(msgspec.Struct):
    kind: str
    status: _AccessStatus


def read_token_review(body: bytes | bytearray, audiences: Sequence[str]) -> TokenVerdict:
    """Read the verdict on a token from a TokenReview. Raises UpstreamError if it has none.

    If the review asked for audiences, the API server must name one of them for which the token is
    valid. An authenticator that does not support audiences names none, so its token is rejected.
    """
    status = _decoded(body, _TokenReview, "TokenReview").status
    if not status.authenticated:
        return TokenVerdict(None, 0.0 if status.error else REJECTED_FOR)
    if audiences and not set(audiences).intersection(status.audiences or ()):
        return TokenVerdict(None, REJECTED_FOR)
    user = status.user
    if not user.username:
        raise UpstreamError("garbage", "the API server accepts a token but names no user")
    extra = sorted((key, tuple(values)) for key, values in (user.extra or {}).items())
    caller = Caller(user.username, user.uid, tuple(user.groups or ()), tuple(extra))
    if caller.size > MAX_CALLER:
        raise UpstreamError(
            "too_large",
            f"the user's name, groups and extra take {caller.size} bytes, and kmproxy accepts "
            f"{MAX_CALLER}: use a service account, or a user in fewer groups",
        )
    return TokenVerdict(caller, ACCEPTED_FOR)


def read_access_review(body: bytes | bytearray) -> bool:
    """Tell whether a SubjectAccessReview allows the question and does not deny it.

    Raises UpstreamError if the document is not one.
    """
    status = _decoded(body, _AccessReview, "SubjectAccessReview").status
    return status.allowed and not status.denied


def _decoded(body: bytes | bytearray, shape: type[T], kind: str) -> T:
    try:
        review = msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        review = None
    if review is None or review.kind != kind:  # type: ignore[attr-defined] # both shapes have one
        raise UpstreamError("garbage", f"the API server's answer is not a {kind}")
    return review


class LogThrottle:
    """Limits log lines: one line in `pause` seconds for each reason.

    The set of reasons has to be bounded, because each reason is remembered.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._said: dict[str, tuple[float, int]] = {}  # reason -> time of its line, lines left out

    def lets(self, reason: str, now: float) -> int | None:
        """Return None if the line is to be left out, else the lines left out since the last one."""
        said, unsaid = self._said.get(reason, (now - self._pause, 0))
        if now - said < self._pause:
            self._said[reason] = (said, unsaid + 1)
            return None
        self._said[reason] = (now, 0)
        return unsaid
