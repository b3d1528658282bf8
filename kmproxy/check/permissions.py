"""Checks the permissions: which ones the API server grants to kmproxy, and which it should not.

Knows the access review of kmproxy itself, and that a kubelet that answers proves a permission.
Must not know which requests need which permission.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from kmproxy.check.report import Access, Finding, Result
from kmproxy.check.steps import Steps
from kmproxy.config.logs_values import LeaseName
from kmproxy.errors import ApiError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.permissions import (
    EVENTS,
    EVERYTHING,
    NODE_PODS,
    NODE_PROXY,
    Permission,
    lease,
    needed,
    needed_by_logs,
    unneeded,
    unneeded_by_logs,
)
from kmproxy.kube.service_account import own_namespace

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class _Status(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


class _Review(msgspec.Struct):
    status: _Status


_REVIEW = msgspec.json.Decoder(_Review)


async def is_allowed(api: ApiServer, permission: Permission) -> bool:
    """Whether the API server grants a permission to kmproxy.

    Raises UpstreamError if the API server gives no valid answer.
    """
    spec = {"resourceAttributes": permission.attributes()}
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    body = await api.post(REVIEWS, head | {"spec": spec})
    try:
        status = _REVIEW.decode(body).status
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(200, "garbage", "the API server's answer is not an access review") from error
    return status.allowed and not status.denied


@dataclass(frozen=True, slots=True, eq=False)
class PermissionCheck:
    """The permissions that the configuration needs, and those that it does not need."""

    _steps: Steps
    _proved: set[tuple[str, str, str]] = field(default_factory=set)

    async def ask(self) -> None:
        """Ask the API server about each permission."""
        config = self._steps.config
        wanted, unwanted = needed(config), unneeded(config)
        if self._steps.logs is not None:
            logs = self._steps.logs.logs
            wanted = needed_by_logs(config, logs.source)
            unwanted = unneeded_by_logs(config, logs.source)
            if logs.events:
                wanted += (*EVENTS, *self._lease(logs.events_lease))
        access = self._steps.report.access
        heading = (
            f"Permissions, asked of {self._steps.clients.identity.server}: "
            f"{len(wanted)} needed, {len(unwanted)} that should not be granted"
        )
        async with self._steps.step("permissions", "access reviews", heading):
            for permission in wanted:
                access.append(
                    Access(permission, True, await is_allowed(self._steps.clients.api, permission))
                )
            for permission in unwanted:
                allowed = await is_allowed(self._steps.clients.api, permission)
                access.append(Access(permission, False, allowed))
                if allowed and permission is EVERYTHING:
                    break
        asked = {each.permission for each in access}
        access += [Access(each, True, None) for each in wanted if each not in asked]

    def _lease(self, name: LeaseName) -> tuple[Permission, ...]:
        """The permissions for the Lease. None if its namespace is not known: a later step tells."""
        directory = self._steps.config.apiserver.service_account_dir
        namespace = name.namespace or own_namespace(directory)
        return lease(namespace, name.name) if namespace else ()

    def prove(self, permission: Permission) -> None:
        """Remember that a kubelet answered a request that needs this permission."""
        self._proved.add(permission.kind)

    def want_proxy(self) -> None:
        """Replace the need of `nodes/pods`, which this kubelet does not know, by `nodes/proxy`."""
        access = self._steps.report.access
        said = {each.permission.kind: each.allowed for each in access}
        rest = [e for e in access if e.permission.kind not in {NODE_PODS.kind, NODE_PROXY.kind}]
        wanted = replace(NODE_PROXY, why="the pods of a kubelet older than 1.33")
        access[:] = [*rest, Access(wanted, True, said.get(NODE_PROXY.kind))]

    def findings(self) -> Iterator[Finding]:
        """The rows of the permissions. They are complete only after all other steps.

        A kubelet that answers has proved the permission, even if the API server denies it for all
        nodes: a role may grant it for single nodes.
        """
        for access in self._steps.report.access:
            permission, why = access.permission, access.permission.why
            answered = permission.kind in self._proved
            match access.needed, access.allowed:
                case True, None:
                    row: tuple[Result, str] = "skipped", "unknown: the API server did not answer"
                case True, True:
                    row = "ok", f"granted: {why}"
                case True, False if answered:
                    row = "warning", "not granted for every node, but this kubelet answers"
                case True, False:
                    row = "failed", f"not granted: {why}"
                case False, True:
                    row = "warning", f"granted but not needed: {why}"
                case _:
                    continue
            yield Finding("permission", str(permission), *row)
