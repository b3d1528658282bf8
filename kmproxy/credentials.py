"""Who we are towards the API server and the kubelets, and whom we trust.

Knows service-account files, kubeconfigs and how both rotate. Must not know what
is asked with them. What has rotated badly keeps the last good one, with a log
line and a metric. No `repr` and no error shows a credential.
"""

from __future__ import annotations

import logging
import math
import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmproxy.errors import ConfigError, CredentialError

if TYPE_CHECKING:
    from kmproxy.config import ApiServerConfig, KubeletConfig
    from kmproxy.telemetry import Telemetry

TOKEN_AGE = 60.0
"""Seconds after which a token is read again; the kubelet rewrites it well before it expires."""

CA_AGE = 300.0
"""Seconds after which the files of a TLS context are looked at again."""

Clock = Callable[[], float]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a TLS context is made of: files, each read again as it rotates.

    Without a CA file the system's are trusted. Without `verify` nothing is.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    def contents(self) -> tuple[bytes | None, ...]:
        """What the files hold now. Raises OSError."""
        files = (self.ca_file, self.cert_file, self.key_file)
        return tuple(Path(file).read_bytes() if file else None for file in files)

    def context(self) -> ssl.SSLContext:
        """A client's context. Raises OSError, of which ssl.SSLError is one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file:
            context.load_verify_locations(self.ca_file)
        else:
            context.load_default_certs()
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


class TlsContext:
    """A TLS context that follows its files, looked at every `CA_AGE` seconds.

    A changed file makes a new context, so that an old CA is forgotten and
    connections made with it are not used again.
    """

    def __init__(
        self, trust: Callable[[], Trust], what: str, *, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._trust = trust
        self._what = what
        self._clock = clock
        self._telemetry = telemetry
        self._context: ssl.SSLContext | None = None
        self._made_of: tuple[object, ...] = ()
        self._look_at = -math.inf

    def __repr__(self) -> str:
        return f"<TlsContext of {self._what}>"

    def current(self) -> ssl.SSLContext:
        """The context to use now. Raises CredentialError if there never was a good one."""
        if self._context is not None and self._clock() < self._look_at:
            return self._context
        self._look_at = self._clock() + CA_AGE
        trust = self._trust()
        try:
            made_of = (trust, trust.contents())
            if self._context is None or made_of != self._made_of:
                self._context, self._made_of = trust.context(), made_of
        except OSError as error:
            reason = getattr(error, "strerror", None) or str(error)
            file = error.filename or trust.ca_file
            if self._context is None:
                raise CredentialError(f"{self._what}: {file}: {reason}") from error
            _log.warning("%s: %s: %s; the last good one stays in use", self._what, file, reason)
            self._telemetry.credential_errors.labels("ca").inc()
        return self._context


class Identity(ABC):
    """As whom the API server at `server` is asked.

    `server` is a URL without a path's slash at its end. `server_name` is what
    its certificate must bear if not the host, `proxy` the URL of a forward
    proxy on the way to it.
    """

    server: str
    server_name: str | None = None
    proxy: str | None = None

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """The CA of the cluster, and a client certificate if that is what we have."""

    @abstractmethod
    async def authorization(self, *, anew: bool = False) -> str | None:
        """The value of an Authorization header; read `anew` after a 401."""


class ServiceAccount(Identity):
    """A pod's own identity: the token and CA that the kubelet mounts and rotates."""

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        host = environment["KUBERNETES_SERVICE_HOST"]
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        self.server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token_file = Path(directory, "token")
        self._trust = Trust(ca_file=str(Path(directory, "ca.crt")))
        self._clock = clock
        self._telemetry = telemetry
        self._token = self._read()
        self._read_at = clock()

    def __repr__(self) -> str:
        return f"<ServiceAccount at {self.server}, token from {self._token_file}>"

    @property
    def trust(self) -> Trust:
        """The CA file beside the token."""
        return self._trust

    async def authorization(self, *, anew: bool = False) -> str | None:
        """The token, read at most a minute ago; the last good one if that fails."""
        if anew or self._clock() - self._read_at >= TOKEN_AGE:
            self._read_at = self._clock()
            try:
                self._token = self._read()
            except CredentialError as error:
                _log.warning("%s; the last good one stays in use", error)
                self._telemetry.credential_errors.labels("token").inc()
        return f"Bearer {self._token}"

    def _read(self) -> str:
        try:
            token = self._token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a token"
            raise CredentialError(f"service-account token {self._token_file}: {reason}") from error
        if not token or not token.isprintable() or " " in token:
            raise CredentialError(f"service-account token {self._token_file}: it is not a token")
        return token


class Kubeconfig(Identity):
    """A kubeconfig's current context, as kubernetes_asyncio reads it.

    That library costs 37 MiB of memory, so it is imported here and only here.
    """

    def __init__(self, path: str, *, clock: Clock, telemetry: Telemetry) -> None:
        self._path = path
        self._clock = clock
        self._telemetry = telemetry
        self._trust = Trust()
        self._authorization: str | None = None
        self._loader: Any = None
        self._modified: object = None
        self._read_at = -math.inf

    def __repr__(self) -> str:
        return f"<Kubeconfig {self._path}>"

    @classmethod
    async def load(cls, path: str, *, clock: Clock, telemetry: Telemetry) -> Kubeconfig:
        """Read the file. Raises ConfigError if it cannot be used."""
        identity = cls(path, clock=clock, telemetry=telemetry)
        try:
            await identity._read(anew=True)
        except CredentialError as error:
            raise ConfigError([f"--kubeconfig: {error}"]) from error
        return identity

    @property
    def trust(self) -> Trust:
        """The context's cluster CA and client certificate."""
        return self._trust

    async def authorization(self, *, anew: bool = False) -> str | None:
        """The token of the context's user, if it has one; the last good one if that fails."""
        if anew or self._clock() - self._read_at >= TOKEN_AGE:
            try:
                await self._read(anew=anew)
            except CredentialError as error:
                _log.warning("%s; the last good one stays in use", error)
                self._telemetry.credential_errors.labels("kubeconfig").inc()
        return self._authorization if self.server.startswith("https:") else None

    async def _read(self, *, anew: bool) -> None:
        from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - its price is memory
        from kubernetes_asyncio.config import kube_config  # noqa: PLC0415

        self._read_at = self._clock()
        modified = _modified(self._path)
        settings = Configuration()
        try:
            if anew or modified != self._modified:
                self._loader = await kube_config.load_kube_config(
                    self._path, client_configuration=settings, persist_config=False
                )
            elif "exec" in (self._loader._user or ()) and not hasattr(  # noqa: SLF001 - it has no other word for it
                self._loader, "exec_plugin_expiry"
            ):
                return  # without an expiry its credential holds until it is refused
            else:
                await self._loader.load_and_set(settings)
        except Exception as error:
            raise CredentialError(f"{self._path}: {_first_line(error)}") from error
        self._modified = modified
        self.server = str(settings.host).rstrip("/")
        self.server_name = settings.tls_server_name
        self.proxy = settings.proxy
        self._trust = Trust(
            settings.ssl_ca_cert, settings.cert_file, settings.key_file, verify=settings.verify_ssl
        )
        self._authorization = settings.api_key.get("BearerToken")


def _modified(path: str) -> tuple[tuple[int, int, int], ...]:
    """What tells one version of a kubeconfig from another.

    `path` may be several, as $KUBECONFIG has them; of those, some may be
    missing. Raises CredentialError if there is nothing to read.
    """
    files = [Path(each).expanduser() for each in path.split(os.pathsep) if each]
    present = [file for file in files if file.exists()] or files
    try:
        for file in present:
            file.read_text("utf-8")
        stats = [file.stat() for file in present]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise CredentialError(f"{path}: {reason}") from error
    return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def _first_line(error: Exception) -> str:
    """Why a kubeconfig cannot be read, without what stands in it."""
    name = type(error).__name__
    if name in {"ConfigException", "FileNotFoundError", "PermissionError"}:
        return str(error).partition("\n")[0]
    return f"it is not a kubeconfig ({name})"


async def find_identity(
    config: ApiServerConfig,
    environment: Mapping[str, str],
    *,
    clock: Clock,
    telemetry: Telemetry,
) -> Identity:
    """The identity that the configuration and the environment name.

    In order: `--kubeconfig`, the pod's service account, `$KUBECONFIG`,
    `~/.kube/config`. Raises ConfigError or CredentialError.
    """
    if config.kubeconfig:
        return await Kubeconfig.load(config.kubeconfig, clock=clock, telemetry=telemetry)
    if "KUBERNETES_SERVICE_HOST" in environment:
        return ServiceAccount(
            config.service_account_dir, environment, clock=clock, telemetry=telemetry
        )
    path = _default_kubeconfig(environment)
    return await Kubeconfig.load(path, clock=clock, telemetry=telemetry)


def _default_kubeconfig(environment: Mapping[str, str]) -> str:
    named = environment.get("KUBECONFIG")
    home = Path(environment.get("HOME", "/"), ".kube", "config")
    if not named and not home.exists():
        problem = (
            "no API server: this is not a pod (KUBERNETES_SERVICE_HOST is not set), "
            f"and there is no --kubeconfig, no $KUBECONFIG and no {home}"
        )
        raise ConfigError([problem])
    return named or str(home)


def kubelet_trust(config: KubeletConfig, identity: Identity) -> Trust:
    """What a kubelet's serving certificate is verified by: the cluster's CA, or as configured."""
    trust = identity.trust
    if config.insecure_tls:
        return replace(trust, ca_file=None, verify=False)
    return replace(trust, ca_file=config.ca_file or trust.ca_file, verify=True)
