"""The namespaces that a tenant sees on the page, without a review of every namespace each time.

Knows when all namespaces are reviewed again. Must not know how a review is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from kmproxy.auth.footholds import PACE
from kmproxy.auth.middleware import Decision
from kmproxy.auth.tenant import Tenant
from kmproxy.bounded_cache import ENTRY, BoundedCache
from kmproxy.kube.reviews import DENIED_FOR

MAX_CALLERS: Final = 1024
MAX_BYTES: Final = 2 << 20


class SeenNamespaces:
    """The namespaces of tenants, found among `existing` ones.

    All namespaces are reviewed at most once in `DENIED_FOR` seconds for a tenant, and in a large
    cluster once in `PACE` seconds for each namespace. In between, the page reviews only the
    namespaces that the tenant has seen: a lost right takes effect as everywhere, a new one later.
    """

    def __init__(self, existing: Callable[[], Collection[str]], clock: Callable[[], float]) -> None:
        self._existing = existing
        self._clock = clock
        self._found: BoundedCache[str, tuple[str, ...]] = BoundedCache(
            MAX_CALLERS, size=MAX_BYTES, weigh=_weigh
        )

    def __repr__(self) -> str:
        return f"<SeenNamespaces of {len(self._found)} tenants>"

    async def of(self, tenant: Tenant, decision: Decision) -> list[str]:
        """The namespaces that a tenant sees. Raises AccessError.

        All are reviewed, wanted or not: no review may depend on namespaces of others.
        """
        found = self._found.get(decision.caller, self._clock())
        names = self._existing() if found is None else found
        reviewed = await tenant.sees(names, deadline=decision.deadline)
        seen = [name for name, visible in reviewed.items() if visible]
        if found is None and names:
            until = self._clock() + max(DENIED_FOR, PACE * len(names))
            self._found.put(decision.caller, tuple(seen), until)
        return seen


def _weigh(caller: str, names: tuple[str, ...]) -> int:
    return ENTRY + len(caller) + sum(len(name) + 60 for name in names)
