"""Tokens and rights: who a token is, and what a user may do.

Knows token reviews, and rules beside those of RBAC. Must not know requests.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid

from kmproxy.simulator.objects import Object
from kmproxy.simulator.rbac import AUTHENTICATED, Attributes, Rbac, default_objects
from kmproxy.simulator.statuses import StatusError

AUDIENCE = "https://kubernetes.default.svc"

SERVICE_ACCOUNT = "system:serviceaccount:kmproxy:kmproxy"

CERTIFICATE_USER = "kmproxy"

DAEMON = (SERVICE_ACCOUNT, CERTIFICATE_USER)
"""The users for which `allow` works if none is named."""

MASTERS = ("system:admin", "kube-apiserver-kubelet-client", "system:masters")

_RULES = (
    *((verb, name) for verb in ("get", "list", "watch") for name in ("namespaces", "nodes")),
    *(("get", f"nodes/{name}") for name in ("metrics", "proxy", "pods")),
    *(("create", name) for name in ("tokenreviews", "subjectaccessreviews")),
)


class Authority:
    """Authenticates and authorizes: tokens and rules, which can both change at any time.

    A resource is `namespaces`, `nodes/proxy`, or a path such as `/metrics`. A rule may name a
    group instead of a user, and applies in every namespace and API group. `rbac` can allow more.
    It begins with roles and bindings that every cluster has. `MASTERS` may do everything.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
        self._rules = {(user, *rule) for user in DAEMON for rule in _RULES}
        self.rbac = Rbac()
        self.rbac.apply(*default_objects())

    def __repr__(self) -> str:
        return f"<Authority {len(self._tokens)} tokens, {len(self._rules)} rules>"

    def issue(
        self, user: str, *, groups: tuple[str, ...] = (), audiences: tuple[str, ...] = (AUDIENCE,)
    ) -> str:
        """Return a new token of `user`, valid for `audiences` until it is revoked."""
        claims = {"sub": user, "aud": audiences, "exp": int(time.time()) + 3600}
        parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
        parts.append(secrets.token_bytes(32))
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        self._tokens[token] = (user, (AUTHENTICATED, *groups), audiences)
        return token

    def revoke(self, token: str) -> None:
        """Make `token` invalid from now on."""
        self._tokens.pop(token, None)

    def authenticate(self, token: str) -> str | None:
        """Return the user of a token that is valid for the API server and the kubelets, or None."""
        user, _, audiences = self._tokens.get(token, (None, (), ()))
        return user if AUDIENCE in audiences else None

    def review(self, token: str, audiences: list[str]) -> Object:
        """Return the status of a TokenReview."""
        user, groups, good_for = self._tokens.get(token, (None, (), ()))
        common = [each for each in audiences or [AUDIENCE] if each in good_for]
        if user is None or not common:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        who = {"username": user, "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, user))}
        return {"authenticated": True, "user": who | {"groups": list(groups)}, "audiences": common}

    def allow(self, verb: str, resource: str, *, user: str | None = None) -> None:
        """Grant a verb on a resource to `user` (None: to the daemon)."""
        self._rules |= {(who, verb, resource) for who in ([user] if user else DAEMON)}

    def deny(self, verb: str, resource: str, *, user: str | None = None) -> None:
        """Withdraw a verb on a resource from `user` (None: from everyone)."""
        self._rules = {
            rule
            for rule in self._rules
            if rule[1:] != (verb, resource) or user not in (None, rule[0])
        }

    def allows(self, user: str, verb: str, resource: str, groups: tuple[str, ...] = ()) -> bool:
        """Tell whether `user`, or one of `groups`, may do `verb` on `resource`, everywhere."""
        if resource.startswith("/"):
            return self.permits(user, groups, Attributes(verb, path=resource))
        return self.permits(user, groups, Attributes(verb, resource=resource))

    def permits(self, user: str, groups: tuple[str, ...], wanted: Attributes) -> bool:
        """Tell whether `user`, or one of `groups`, is allowed the request with these attributes."""
        names = (user, *groups)
        rule = (wanted.verb, wanted.path or wanted.resource)
        return any(name in MASTERS or (name, *rule) in self._rules for name in names) or (
            self.rbac.allows(user, groups, wanted)
        )

    def check(
        self,
        user: str,
        verb: str,
        resource: str,
        *,
        name: str = "",
        group: str = "",
        namespace: str = "",
    ) -> None:
        """Raise StatusError, with the text of a real API server, if `user` is not allowed it."""
        wanted = Attributes(verb, resource=resource, group=group, namespace=namespace, name=name)
        if self.permits(user, (AUTHENTICATED,), wanted):
            return
        plural = resource.partition("/")[0]
        subject = f'{plural} "{name}"' if name else plural
        inside = name if plural == "namespaces" else namespace
        where = f'in the namespace "{inside}"' if inside else "at the cluster scope"
        dotted = f".{group}" if group else ""
        details = {"name": name, "group": group, "kind": plural}
        raise StatusError(
            403,
            f'{subject.replace(plural, plural + dotted, 1)} is forbidden: User "{user}" cannot '
            f'{verb} resource "{resource}" in API group "{group}" '
            f"{where}",
            details={key: value for key, value in details.items() if value},
        )
