"""Who asks, and may they: the gates of the modes of authorization.

Knows which question each mode asks about a caller, and what a tenant sees. Must
not know HTTP requests and answers, nor how a review is made.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kmproxy.config import AuthorizationConfig
from kmproxy.errors import AccessError, UpstreamError
from kmproxy.reviewer import Reviewer
from kmproxy.reviews import Caller, Question, bearer_token
from kmproxy.tenancy import Recent
from kmproxy.tenant import Tenant
from kmproxy.values import Resource

NODE_METRICS = Resource("nodes", "metrics")

LOOKUPS = 20.0
"""Names of no Node that a caller may have looked up at once."""

MAX_LOOKING = 4096
"""Callers of which something is remembered at most: some 200 bytes of each."""

MAX_SEARCHED = 1024
"""Namespaces that are reviewed at most to find one in which a caller has a right."""

DEFAULT_PREFIXES = ("/api/", "/apis/", "/openapi/")
DEFAULT_PATHS = {
    *("/api", "/apis", "/openapi", "/version", "/version/", "/healthz", "/livez", "/readyz"),
}
"""What Kubernetes' default roles let everyone get who is authenticated."""


@dataclass(frozen=True, slots=True)
class Place:
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


class Gate(ABC):
    """Lets callers in, in one of the modes of `--authorization`."""

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
    async def admit(self, caller: Caller, place: Place) -> Tenant | None:
        """Let a caller see a place, whole (None) or as a tenant. Raises AccessError."""

    async def _require(self, caller: Caller, question: Question, where: str = "") -> None:
        if not await self._reviewer.may(caller, question):
            raise _denied(caller, question, where)


class KubernetesGate(Gate):
    """Asks whether a caller may get the path itself, or `nodes/metrics`.

    A path that names a node is always reviewed as `get nodes/metrics` of that node, as its
    kubelet does. The path would prove nothing: Kubernetes' default role `system:discovery`
    grants `/api/*` to everyone who is authenticated.

    `exists` tells whether a Node of a name exists; it raises UpstreamError. A name of no Node is
    reviewed as the right on all nodes: one review for a caller, whatever the number of names.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        *,
        by_path: bool,
        exists: Callable[[str], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(reviewer)
        self._by_path = by_path
        self._exists = exists
        self._lookups = LookupLimit(clock)

    async def admit(self, caller: Caller, place: Place) -> None:
        """Let a caller see a place, or raise AccessError."""
        asked = Question(resource=NODE_METRICS, name=place.node)
        if place.by_name:
            known = await self._is_node(caller, place.node)
            reviewed = asked if known else Question(resource=NODE_METRICS)
        else:
            reviewed = asked = Question(path=place.path) if self._by_path else asked
        if not await self._reviewer.may(caller, reviewed):
            # Names what was asked for, so that the line does not tell which nodes exist.
            raise _denied(caller, asked)

    async def _is_node(self, caller: Caller, name: str) -> bool:
        if self._exists is None or not self._lookups.allows(caller):
            return False
        try:
            known = await self._exists(name)
        except UpstreamError as error:
            message = f"your access cannot be reviewed: {error}"
            raise AccessError(500, "review", message) from error
        if known:
            self._lookups.give_back(caller)
        return known


class LookupLimit:
    """How many names of no Node a caller may have looked up: `LOOKUPS` at once, then one a second.

    Callers are told apart by their user name; the longest unused of `MAX_LOOKING` is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: OrderedDict[int, tuple[float, float]] = OrderedDict()  # caller -> left, when

    def __repr__(self) -> str:
        return f"<LookupLimit {len(self._left)} callers>"

    def allows(self, caller: Caller) -> bool:
        """Take one look-up; False if none is left."""
        key, now = hash(caller.username), self._clock()
        left, when = self._left.pop(key, (LOOKUPS, now))
        left = min(LOOKUPS, left + now - when)
        allowed = left >= 1
        self._left[key] = (left - allowed, now)
        if len(self._left) > MAX_LOOKING:
            self._left.popitem(last=False)
        return allowed

    def give_back(self, caller: Caller) -> None:
        """Return what was taken for a name that is a Node's."""
        key = hash(caller.username)
        if key in self._left:
            left, when = self._left[key]
            self._left[key] = (left + 1, when)


class TenantGate(Gate):
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
        self._recent = Recent()
        self._namespaces = namespaces
        self._found: OrderedDict[int, str] = OrderedDict()  # caller -> where it has the right

    async def admit(self, caller: Caller, place: Place) -> Tenant | None:
        """Let a caller see a place, whole (None) or as a tenant. Raises AccessError."""
        everywhere = Question(resource=self._resource)
        if place.wanted is not None and not await self._reviewer.may(caller, everywhere):
            if not await self._sees_any(caller):
                raise _denied(caller, everywhere, " in any namespace")
            tenant = Tenant(
                self._reviewer, caller, self._resource,
                path=place.path, wanted=place.wanted, recent=self._recent,
            )  # fmt: skip
            await tenant.foresee()
            return tenant
        await self._require(caller, everywhere, " in every namespace")
        return None

    async def _sees_any(self, caller: Caller) -> bool:
        """Whether the caller has the right in a namespace that exists.

        Reviews one namespace after the other up to the first: where it had the right before,
        its own if it is a service account, then all. Beyond `MAX_SEARCHED` namespaces this cannot
        be told, and the caller is let in to what is narrowed for it; so it is before namespaces
        are loaded, when nothing is served.
        """
        candidates = list(islice(self._candidates(caller), MAX_SEARCHED + 1))
        key = hash(caller.username)
        for name in candidates[:MAX_SEARCHED]:
            if await self._reviewer.may(caller, Question(resource=self._resource, namespace=name)):
                self._found[key] = name
                self._found.move_to_end(key)
                if len(self._found) > MAX_LOOKING:
                    self._found.popitem(last=False)
                return True
        return not candidates or len(candidates) > MAX_SEARCHED

    def _candidates(self, caller: Caller) -> Iterator[str]:
        known = dict.fromkeys(sorted(self._namespaces()))
        first = [self._found.get(hash(caller.username), "")]
        match caller.username.split(":"):
            case ["system", "serviceaccount", namespace, _]:
                first.append(namespace)
        for name in first:
            if name in known:
                del known[name]
                yield name
        yield from known


def _denied(caller: Caller, question: Question, where: str = "") -> AccessError:
    message = f"user {caller.username[:200]!r} may not {question}{where}"
    return AccessError(403, "denied", message)


def granted_to_all(path: str) -> bool:
    """Whether one of Kubernetes' default roles lets everyone who is authenticated get a path.

    These roles are `system:discovery` and `system:public-info-viewer`.
    """
    return path in DEFAULT_PATHS or path.startswith(DEFAULT_PREFIXES)


def open_gate(
    config: AuthorizationConfig,
    reviewer: Reviewer,
    *,
    exists: Callable[[str], Awaitable[bool]] | None,
    namespaces: Callable[[], Iterable[str]],
    clock: Callable[[], float],
) -> Gate:
    """The gate of a mode of authorization other than none.

    `exists` tells whether there is a Node of a name, `namespaces` which namespaces exist.
    """
    if config.mode == "tenant":
        return TenantGate(reviewer, config.tenant_resource, namespaces)
    by_path = config.attributes == "path"
    return KubernetesGate(reviewer, by_path=by_path, exists=exists, clock=clock)


def node_name(host: str) -> str:
    """The node's name that `--node-name-or-ip` gives, empty if it gives none."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "" if host == "localhost" else host
    return ""
