"""Decides who a caller is, and whether it may have what a request asks for.

Knows which question each mode asks about a caller, and what a tenant sees. Must
not know HTTP requests and answers, nor how a review is made.
"""

from __future__ import annotations

import asyncio
import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kmproxy.allowances import Allowances
from kmproxy.auth.footholds import Footholds
from kmproxy.auth.reviewer import Reviewer
from kmproxy.auth.tenant import Tenant
from kmproxy.auth.tenant_filter import Recent
from kmproxy.config.sections import AuthorizationConfig
from kmproxy.config.types import Resource
from kmproxy.errors import AccessError
from kmproxy.kube.nodes import NodeDirectory
from kmproxy.kube.reviews import Caller, Question, bearer_token

NODE_METRICS = Resource("nodes", "metrics")

DENIALS = 256
"""Nodes that a caller may be denied at once, and then in `DENIALS_IN` seconds: beyond that it is
denied those that it was not allowed before, without a look."""

DENIALS_IN = 30.0

DEFAULT_PREFIXES = ("/api/", "/apis/", "/openapi/", "/.well-known/", "/oapi/", "/swagger")
DEFAULT_PATHS = {
    *("/api", "/apis", "/openapi", "/version", "/version/", "/healthz", "/livez", "/readyz"),
    *("/.well-known", "/oapi", "/osapi", "/osapi/"),
}
"""What default roles of Kubernetes, and of distributions of it, grant to all authenticated."""


@dataclass(frozen=True, slots=True)
class RequestAttributes:
    """What a request wants to see.

    `path` is as it was sent, `node` the node's name where that is known;
    with `by_name` the path itself names the node, which may not exist.
    `wanted` says of a namespace whether it is asked for at all, where what is
    served can be narrowed to namespaces; else it is None.
    """

    path: str
    node: str = ""
    wanted: Callable[[str], bool] | None = None
    by_name: bool = False


class Authorizer(ABC):
    """Authenticates and authorizes callers, in one of the modes of `--authorization`."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._reviewer!r}>"

    async def identify(self, authorization: Sequence[str]) -> Caller:
        """Who asks, by the values of the Authorization headers. Raises AccessError."""
        token = bearer_token(authorization)
        if token is None:
            raise AccessError(401, "no_token", "a bearer token is needed, and only one")
        caller = await self._reviewer.authenticate(token)
        if caller is None:
            message = "the API server does not accept the bearer token: is it of this cluster, "
            message += "still valid, and for one of --authorization-audience if that is given?"
            raise AccessError(401, "bad_token", message)
        return caller

    @abstractmethod
    async def admit(self, caller: Caller, attributes: RequestAttributes) -> Tenant | None:
        """Let a caller see all it asks for (None), or a tenant its part. Raises AccessError."""

    async def _require(self, caller: Caller, question: Question, where: str = "") -> None:
        if not await self._reviewer.may(caller, question):
            raise _denied(caller, question, where)


class KubernetesAuthorizer(Authorizer):
    """Asks whether a caller may get the path itself, or `nodes/metrics`.

    A path that names a node is always reviewed as `get nodes/metrics` of that node, as its
    kubelet does. The path would prove nothing: Kubernetes' default role `system:discovery`
    grants `/api/*` to everyone who is authenticated.

    `nodes` tells whether a Node of a name exists. A name of no Node is reviewed as the right on
    all nodes: one review for a caller, whatever the number of names.
    """

    def __init__(
        self, reviewer: Reviewer, *, by_path: bool, nodes: NodeDirectory | None = None
    ) -> None:
        super().__init__(reviewer)
        self._by_path = by_path
        self._nodes = nodes
        self._denials = Allowances(burst=DENIALS, interval=DENIALS_IN / DENIALS)

    async def admit(self, caller: Caller, attributes: RequestAttributes) -> None:
        """Let a caller see what is asked for, or raise AccessError."""
        if self._by_path and not attributes.by_name:
            return await self._require(caller, Question(path=attributes.path))
        question = Question(resource=NODE_METRICS, name=attributes.node)
        if self._nodes is None or not attributes.by_name:
            return await self._require(caller, question)
        if not await self._may_scrape(self._nodes, caller, question):
            raise _denied(caller, question)
        return None

    async def _may_scrape(self, nodes: NodeDirectory, caller: Caller, named: Question) -> bool:
        """Whether a caller may scrape the node of this name, if it is one.

        A caller with the right on all nodes is told later which names are none. To any other
        caller such a name looks as one of a node that it may not scrape: it is denied, and counted
        as reviewed, without a review.
        """
        reviewer, asker = self._reviewer, caller.username
        if await reviewer.may(caller, Question(resource=NODE_METRICS)):
            known = await nodes.knows(named.name, asker=asker)
            return not known or await reviewer.may(caller, named)
        if (allowed := reviewer.remembered(caller, named)) is not None:
            return allowed
        if not reviewer.was_allowed(caller, named):
            if not self._denials.has_left(asker, reviewer.now()):
                return False
            since = asyncio.get_running_loop().time()
            if not await nodes.knows(named.name, asker=asker):
                self._denials.take(asker, reviewer.now())
                return await reviewer.deny(caller, named, since)
        allowed = await reviewer.may(caller, named)
        if not allowed:
            self._denials.take(asker, reviewer.now())
        return allowed


class TenantAuthorizer(Authorizer):
    """Asks in which namespaces a caller may `get` a resource.

    A caller with the right in all of them at once sees everything. Any other caller is a tenant:
    it is let in only where the answer can be narrowed, and only if it has the right in a
    namespace. `namespaces` tells which ones exist; none are known before they are loaded.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        resource: Resource,
        namespaces: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        super().__init__(reviewer)
        self._resource = resource
        self._recent = recent = Recent()
        self._footholds = Footholds(reviewer, resource, likely=recent.of_all, known=namespaces)

    async def admit(self, caller: Caller, attributes: RequestAttributes) -> Tenant | None:
        """Let a caller see all it asks for (None), or a tenant its part. Raises AccessError."""
        everywhere = Question(resource=self._resource)
        if attributes.wanted is not None and not await self._reviewer.may(caller, everywhere):
            if not await self._footholds.has_any(caller):
                raise _denied(caller, everywhere, " in any namespace")
            tenant = Tenant(
                self._reviewer, caller, self._resource,
                path=attributes.path, wanted=attributes.wanted, recent=self._recent,
            )  # fmt: skip
            await tenant.prefetch()
            return tenant
        await self._require(caller, everywhere, " in every namespace")
        return None


def _denied(caller: Caller, question: Question, where: str = "") -> AccessError:
    message = f"user {caller.username[:200]!r} may not {question}{where}"
    return AccessError(403, "denied", message)


def granted_to_all(path: str) -> bool:
    """Whether one of Kubernetes' default roles lets everyone who is authenticated get a path.

    These roles are `system:discovery` and `system:public-info-viewer`.
    """
    return path in DEFAULT_PATHS or path.startswith(DEFAULT_PREFIXES)


def open_authorizer(
    config: AuthorizationConfig,
    reviewer: Reviewer,
    *,
    nodes: NodeDirectory | None,
    namespaces: Callable[[], Iterable[str]],
) -> Authorizer:
    """The authorizer of a mode of authorization other than none.

    `nodes` tells whether there is a Node of a name, `namespaces` which namespaces exist.
    """
    if config.mode == "tenant":
        return TenantAuthorizer(reviewer, config.tenant_resource, namespaces)
    by_path = config.attributes == "path"
    return KubernetesAuthorizer(reviewer, by_path=by_path, nodes=nodes)


def node_name(host: str) -> str:
    """The node's name that `--node-name-or-ip` gives, empty if it gives none."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "" if host == "localhost" else host
    return ""
