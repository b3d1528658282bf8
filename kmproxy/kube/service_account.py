"""The service account of a pod, and the search for an identity.

Knows service-account files and the environment of a pod. Must not know what is asked with an
identity. No `repr` and no error shows a credential.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.client.credentials import Credential, RotatingText, is_token
from kmproxy.client.tls import Clock, Trust
from kmproxy.config.types import File
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.kube.identity import Identity

if TYPE_CHECKING:
    from kmproxy.config.sections import ApiServerConfig
    from kmproxy.telemetry import CredentialErrors


class ServiceAccount(Identity):
    """The identity of a pod: the token and the CA that the kubelet mounts and rotates."""

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        errors: CredentialErrors,
    ) -> None:
        host = environment["KUBERNETES_SERVICE_HOST"]
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        self.server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        if environment.get("HTTPS_PROXY") or environment.get("https_proxy"):
            from kmproxy.config.proxies import way_by_environment  # noqa: PLC0415 - few have a proxy

            try:
                self.way = way_by_environment(environment, self.server)
            except ValueError as error:
                raise ConfigError([str(error)]) from error
        self._token_file = File(str(Path(directory, "token")))
        self._trust = Trust(ca=File(str(Path(directory, "ca.crt"))))
        self._token = RotatingText(
            self._token_file,
            "service-account token",
            is_token,
            credential="token",
            clock=clock,
            errors=errors,
        )

    def __repr__(self) -> str:
        return f"<ServiceAccount at {self.server}, token from {self._token_file}>"

    @property
    def trust(self) -> Trust:
        """The CA, from the file beside the token."""
        return self._trust

    async def authorization(self, *, anew: bool = False) -> str | None:
        """Return the header with the token, read at most a minute ago.

        If the token cannot be read, the last good one is used. With `anew` it is read at once.
        """
        return f"Bearer {self._token.current(anew=anew)}"


def own_namespace(directory: str) -> str | None:
    """Return the namespace of the pod with these service-account files, or None without them."""
    try:
        return Path(directory, "namespace").read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


async def find_identity(
    config: ApiServerConfig,
    environment: Mapping[str, str],
    *,
    clock: Clock,
    errors: CredentialErrors,
) -> Identity:
    """Find the identity that the configuration and the environment name.

    The first of these is used: `--kubeconfig`, the service account of the pod, `$KUBECONFIG`,
    `~/.kube/config`. Raises ConfigError or CredentialError.
    """
    if not config.kubeconfig and environment.get("KUBERNETES_SERVICE_HOST"):
        return ServiceAccount(config.service_account_dir, environment, clock=clock, errors=errors)
    from kmproxy.kube.kubeconfig import Kubeconfig  # noqa: PLC0415 - a pod does without

    named = None if config.kubeconfig else environment.get("KUBECONFIG")
    return await Kubeconfig.load(
        config.kubeconfig or named or _home_kubeconfig(environment),
        clock=clock,
        errors=errors,
        environment=environment,
        listed=bool(named),
        what="--kubeconfig" if config.kubeconfig else "$KUBECONFIG" if named else "kubeconfig",
    )


def _home_kubeconfig(environment: Mapping[str, str]) -> str:
    home = Path(environment.get("HOME", "/"), ".kube", "config")
    if not os.access(home, os.F_OK):
        problem = (
            "no API server: this is not a pod (KUBERNETES_SERVICE_HOST is not set), "
            f"--kubeconfig and $KUBECONFIG are not set, and {home} does not exist"
        )
        raise ConfigError([problem])
    return str(home)


class DirectIdentity(Credential):
    """The identity for requests to a kubelet, which does not support impersonation.

    The kubelet would answer with the rights of the real user. So an identity that impersonates
    sends it no request.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def __repr__(self) -> str:
        return repr(self._identity)

    async def authorization(self, *, anew: bool = False) -> str | None:
        """Return the header of the identity. Raises CredentialError if it impersonates."""
        authorization = await self._identity.authorization(anew=anew)
        if self._identity.headers:
            raise CredentialError(IMPERSONATES, credential="kubeconfig")
        return authorization


IMPERSONATES = (
    "the kubeconfig's user impersonates (as), which kubelets do not support: fetch through the API "
    "server with --kube-apiserver, or write a credential in the kubelet section"
)
