"""Authenticates callers, and decides whether a caller may have what a request asks for.

Knows which question each mode asks about a caller, and what a tenant sees. Must
not know HTTP requests and responses, nor how a review is made.
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
from kmproxy.auth.tenant import NamespaceNames, Tenant
from kmproxy.auth.tenant_filter import Recent
from kmproxy.config.sections import AuthorizationConfig
from kmproxy.config.types import Resource
from kmproxy.errors import AccessError
from kmproxy.kube.nodes import NodeDirectory
from kmproxy.kube.reviews import Caller, Question, bearer_token

NODE_METRICS = Resource("nodes", "metrics")

DENIALS = 256
"""Denials of nodes that a caller may get at once, and later in each `DENIALS_IN` seconds.

Beyond this number, a node that was not allowed to the caller before is denied without a look-up
and without a review.
"""

DENIALS_IN = 30.0

DEFAULT_PREFIXES = ("/api/", "/apis/", "/openapi/", "/.well-known/", "/oapi/", "/swagger")
DEFAULT_PATHS = {
    *("/api", "/apis", "/openapi", "/version", "/version/", "/healthz", "/livez", "/readyz"),
    *("/.well-known", "/oapi", "/osapi", "/osapi/"),
}
"""Paths that default roles grant to every authenticated user.

The roles are those of Kubernetes and of Kubernetes distributions.
"""


@dataclass(frozen=True, slots=True)
class RequestAttributes:
    """The attributes of a request on which its authorization depends.

    `path` is the path as the client sent it. `node` is the name of the node, or empty if it is
    not known. With `by_name` the path itself names the node, and that node may not exist.
    `wanted` tells whether the request asks for a namespace. It is None if the response cannot be
    narrowed to namespaces. `exists` is False if nothing is served at the path. A caller that is
    not authorized for the path must not learn that.
    """

    path: str
    node: str = ""
    wanted: Callable[[str], bool] | None = None
    by_name: bool = False
    exists: bool = True


class Authorizer(ABC):
    """Authenticates and authorizes callers, in one of the modes of `--authorization`."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._reviewer!r}>"

    async def identify(self, authorization: Sequence[str]) -> Caller:
        """Authenticate the caller by its Authorization header values. Raises AccessError."""
        token = bearer_token(authorization)
        if token is None:
            raise AccessError(
                401, "no_token", "a bearer token is needed, in exactly one Authorization header"
            )
        caller = await self._reviewer.authenticate(token)
        if caller is None:
            message = "the API server does not accept the bearer token: is it of this cluster, "
            message += "still valid, and for one of --authorization-audience if that is given?"
            raise AccessError(401, "bad_token", message)
        return caller

    @abstractmethod
    async def admit(self, caller: Caller, attributes: RequestAttributes) -> Tenant | None:
        """Authorize a caller. Raises AccessError if it may see nothing.

        Returns None if the caller may see all that it asks for, or else the tenant, which sees
        a part.
        """

    async def _require(self, caller: Caller, question: Question, where: str = "") -> None:
        if not await self._reviewer.may(caller, question):
            raise _denied(caller, question, where)


class KubernetesAuthorizer(Authorizer):
    """Asks whether a caller may get the path itself, or `nodes/metrics`.

    A path that names a node is always reviewed as `get nodes/metrics` of that node. The kubelet
    of the node asks the same. A review of the path would prove nothing: the default role
    `system:discovery` of Kubernetes grants `/api/*` to every authenticated user.

    `nodes` tells whether a Node with a name exists. If no Node has the name, the right on all
    nodes is reviewed instead: one review for a caller, for any number of names.
    """

    def __init__(
        self, reviewer: Reviewer, *, by_path: bool, nodes: NodeDirectory | None = None
    ) -> None:
        super().__init__(reviewer)
        self._by_path = by_path
        self._nodes = nodes
        self._denials = Allowances(burst=DENIALS, interval=DENIALS_IN / DENIALS)

    async def admit(self, caller: Caller, attributes: RequestAttributes) -> None:
        """Authorize a caller for the whole request, or raise AccessError."""
        if self._by_path and not attributes.by_name:
            question = Question(path=attributes.path)
            if not (attributes.exists or self._may_ask(caller, question)):
                raise _denied(caller, question)
            return await self._require(caller, question)
        question = Question(resource=NODE_METRICS, name=attributes.node)
        if self._nodes is None or not attributes.by_name:
            return await self._require(caller, question)
        if not await self._may_scrape(self._nodes, caller, question):
            raise _denied(caller, question)
        return None

    def _may_ask(self, caller: Caller, question: Question) -> bool:
        """Whether a path that does not exist may be reviewed. Takes one of the caller's denials.

        So a caller cannot make the API server review any number of names.
        """
        if self._reviewer.remembered(caller, question) is not None:
            return True
        allowed = self._denials.has_left(caller.username, self._reviewer.now())
        if allowed:
            self._denials.take(caller.username, self._reviewer.now())
        return allowed

    async def _may_scrape(self, nodes: NodeDirectory, caller: Caller, named: Question) -> bool:
        """Whether a caller may scrape the node with the name of `named`, if that node exists.

        True also if no Node has the name and the caller has the right on all nodes: a later step
        tells this caller that the node does not exist. Any other caller cannot distinguish a
        missing node from a node that it may not scrape. Its request is denied, and counted as
        reviewed, without a review.
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

    A caller with the right in all namespaces at once sees everything. Any other caller is a
    tenant. A tenant is admitted only if the response can be narrowed to namespaces, and only if
    the tenant has the right in at least one namespace. `namespaces` returns the namespaces that
    exist, or none before they are loaded. `exists` tells whether a namespace exists.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        resource: Resource,
        namespaces: Callable[[], Iterable[str]] = tuple,
        exists: Callable[[str], bool] = lambda _: True,
    ) -> None:
        super().__init__(reviewer)
        self._names = NamespaceNames(exists)
        self._resource = resource
        self._recent = recent = Recent()
        self._footholds = Footholds(reviewer, resource, likely=recent.of_all, known=namespaces)

    async def admit(self, caller: Caller, attributes: RequestAttributes) -> Tenant | None:
        """Authorize a caller. Raises AccessError if it may see nothing.

        Returns None if the caller may see all that it asks for, or else the tenant, which sees
        a part.
        """
        everywhere = Question(resource=self._resource)
        if attributes.wanted is not None and not await self._reviewer.may(caller, everywhere):
            if not await self._footholds.has_any(caller):
                raise _denied(caller, everywhere, " in any namespace")
            tenant = Tenant(
                self._reviewer, caller, self._resource,
                path=attributes.path, wanted=attributes.wanted, recent=self._recent,
                names=self._names,
            )  # fmt: skip
            await tenant.prefetch()
            return tenant
        await self._require(caller, everywhere, " in every namespace")
        return None


def _denied(caller: Caller, question: Question, where: str = "") -> AccessError:
    message = f"user {caller.username[:200]!r} may not {question}{where}"
    return AccessError(403, "denied", message)


def granted_to_all(path: str) -> bool:
    """Whether a default role of Kubernetes lets every authenticated user get a path.

    These roles are `system:discovery` and `system:public-info-viewer`.
    """
    return path in DEFAULT_PATHS or path.startswith(DEFAULT_PREFIXES)


def open_authorizer(
    config: AuthorizationConfig,
    reviewer: Reviewer,
    *,
    nodes: NodeDirectory | None,
    namespaces: Callable[[], Iterable[str]],
    exists: Callable[[str], bool],
) -> Authorizer:
    """Returns the authorizer for the configured mode, which must not be `none`.

    `nodes` tells whether a Node with a name exists. `namespaces` returns the namespaces that
    exist. `exists` tells whether a namespace exists.
    """
    if config.mode == "tenant":
        return TenantAuthorizer(reviewer, config.tenant_resource, namespaces, exists)
    by_path = config.attributes == "path"
    return KubernetesAuthorizer(reviewer, by_path=by_path, nodes=nodes)


def node_name(host: str) -> str:
    """The node name in a value of `--node-name-or-ip`.

    Empty if the value is an IP address or `localhost`.
    """
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "" if host == "localhost" else host
    return ""
