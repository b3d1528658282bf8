"""An identity from a kubeconfig. It is read again as its files, tokens and plugins change.

Knows files, how their changes are noticed, and when a credential has to be renewed. Must not know
the format, or what is asked with the identity. No error shows the content of a kubeconfig.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kmproxy.client.credentials import TOKEN_AGE, is_token
from kmproxy.client.tls import Clock, Trust
from kmproxy.config.proxies import Way, way_by_environment
from kmproxy.config.types import Secret
from kmproxy.digests import digest
from kmproxy.errors import ConfigError, CredentialError
from kmproxy.kube.context_options import ExecPlugin, OidcProvider, Selected
from kmproxy.kube.contexts import Kubeconfigs
from kmproxy.kube.exec_plugin import ExecCredential, run_plugin
from kmproxy.kube.identity import Identity
from kmproxy.kube.oidc import OidcTokens
from kmproxy.shared import SharedCalls

if TYPE_CHECKING:
    from kmproxy.telemetry import CredentialErrors

READ_TIMEOUT = 30.0
"""Seconds within which the plugin of a kubeconfig, or the provider of its tokens, has to answer."""

MAX_FILE = 16 << 20
"""Bytes of the largest kubeconfig that is read."""

SOONEST = 10.0
"""Seconds between two runs of a plugin whose credentials expire sooner than that."""

_log = logging.getLogger(__package__)


class Kubeconfig(Identity):
    """The identity of the current context of a kubeconfig, or of several, as in $KUBECONFIG.

    `listed` says whether `path` is a list of paths.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        errors: CredentialErrors,
        environment: Mapping[str, str] | None = None,
        listed: bool = False,
    ) -> None:
        self._path = path
        paths = dict.fromkeys(path.split(os.pathsep) if listed else [path])
        self._files = [str(Path(each).expanduser().absolute()) for each in paths if each]
        self._listed = listed
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._errors = errors
        self._trust = Trust()
        self._authorization: str | None = None
        self._made_of = b""
        self._selected: Selected | None = None
        self._given: ExecCredential | None = None
        self._renew_at = math.inf
        self._oidc: OidcTokens | None = None
        self._read_at = -math.inf
        self._reading: SharedCalls[str] = SharedCalls(keep=False)

    def __repr__(self) -> str:
        return f"<Kubeconfig {self._path}>"

    @classmethod
    async def load(
        cls,
        path: str,
        *,
        clock: Clock,
        errors: CredentialErrors,
        environment: Mapping[str, str] | None = None,
        listed: bool = False,
        what: str = "--kubeconfig",
    ) -> Kubeconfig:
        """Read the kubeconfig. Raises ConfigError if it cannot be used.

        `what` is the name of the setting in the error message.
        """
        identity = cls(path, clock=clock, errors=errors, environment=environment, listed=listed)
        try:
            await identity._read(anew=True)
        except CredentialError as error:
            raise ConfigError([f"{what}: {error}"]) from error
        return identity

    @property
    def trust(self) -> Trust:
        """The cluster CA and the client certificate of the current context."""
        return self._trust

    async def authorization(self, *, anew: bool = False) -> str | None:
        """Return the header for the user of the context, or None without a token or a login.

        If the kubeconfig cannot be read again, the last good header is used. Raises CredentialError
        if the kubeconfig now names another server than the one that answered 401.
        """
        now = self._clock()
        if anew or now - self._read_at >= TOKEN_AGE or now >= self._renew_at:
            server = self.server
            await self._reading.result(self._path, lambda: self._read_again(anew=anew))
            if anew and self.server != server:
                message = f"{self._path}: the server has changed since the request began"
                raise CredentialError(message, credential="kubeconfig")
        return self._authorization

    async def _read_again(self, *, anew: bool) -> None:
        try:
            await self._read(anew=anew)
        except CredentialError as error:
            _log.warning("%s; the last good one stays in use", error)
            self._errors.count("kubeconfig")
            self._renew_at = max(self._renew_at, self._clock() + SOONEST)

    async def _read(self, *, anew: bool) -> None:
        """Read the files and take over all of their settings or none. Raises CredentialError."""
        self._read_at = self._clock()
        texts = self._texts()
        made_of = digest(*texts, *texts.values())
        selected, changed = self._selected, made_of != self._made_of
        if changed or selected is None:
            selected = _select(texts)
        cluster, user = selected.cluster, selected.user
        way = self._way_to(selected)
        given, renew_at, oidc = self._given, self._renew_at, self._oidc
        if changed:
            given, renew_at, oidc = None, math.inf, None
        where = f"{self._path}: user {user.name!r}"
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                token = None
                match user.plugin:
                    case ExecPlugin() as plugin:
                        if anew or given is None or self._clock() >= renew_at:
                            given = await run_plugin(plugin, cluster, self._environment)
                            renew_at = self._clock() + _life(given)
                        token = given.token
                    case OidcProvider() as provider:
                        oidc = oidc or OidcTokens(provider)
                        token = await oidc.token(time.time())
                    case None:
                        given = None
        except TimeoutError:
            message = f"the plugin gave no credential within {READ_TIMEOUT:g} s"
            raise CredentialError(f"{where}: {message}", credential="kubeconfig") from None
        except CredentialError as error:
            message = f"{where}: {error}"
            raise CredentialError(message, credential="kubeconfig") from error
        authorization = _authorization(where, selected, token)
        self._made_of, self._selected, self._authorization = made_of, selected, authorization
        self._given, self._renew_at, self._oidc = given, renew_at, oidc
        self.server, self.server_name, self.way = cluster.server, cluster.server_name, way
        self.headers = user.headers
        by_plugin = given is not None and given.cert is not None
        self._trust = Trust(
            cluster.ca,
            given.cert if given is not None and by_plugin else user.cert,
            given.key if given is not None and by_plugin else user.key,
            verify=cluster.verify,
        )

    def _texts(self) -> dict[str, bytes]:
        """Return the content of each file. Raises CredentialError.

        Of several files, some may be missing.
        """
        texts = {}
        for file in self._files:
            try:
                with Path(file).open("rb") as stream:
                    texts[file] = stream.read(MAX_FILE + 1)
            except FileNotFoundError as error:
                if not self._listed:
                    raise self._problem(self._path, "No such file or directory") from error
            except OSError as error:
                raise self._problem(self._shown(file), error.strerror or "no file") from error
            if len(texts.get(file, b"")) > MAX_FILE:
                raise self._problem(self._shown(file), f"the file is over {MAX_FILE:,} bytes")
        if not texts:
            raise self._problem(self._path, "No such file or directory")
        return texts

    def _shown(self, file: str) -> str:
        return file if self._listed else self._path

    def _way_to(self, selected: Selected) -> Way:
        if selected.cluster.proxy is not None:
            return Way(selected.cluster.proxy, "proxy-url")
        try:
            return way_by_environment(self._environment, selected.cluster.server)
        except ValueError as error:
            raise self._problem(self._path, str(error)) from error

    def _problem(self, where: str, message: str) -> CredentialError:
        return CredentialError(f"{where}: {message}", credential="kubeconfig")


def _select(texts: Mapping[str, bytes]) -> Selected:
    kubeconfigs = Kubeconfigs()
    for file, data in texts.items():
        kubeconfigs.add(file, data)
    return kubeconfigs.select()


def _life(given: ExecCredential) -> float:
    """Return the seconds until the plugin runs again, infinite if its credential has no end."""
    if given.expires_at is None:
        return math.inf
    life = given.expires_at - time.time()
    return max(life - min(300.0, life / 5), SOONEST)


def _authorization(where: str, selected: Selected, token: Secret | None) -> str | None:
    """Return the value of the Authorization header: a login or a token. Raises CredentialError.

    The text of a token file goes before a token of the kubeconfig or of a plugin.
    """
    user = selected.user
    if user.login is not None:
        name, password = user.login
        return "Basic " + base64.b64encode(f"{name}:{password.reveal()}".encode()).decode()
    text = (user.token or token or Secret("")).reveal().strip()
    if user.token_file is not None:
        try:
            text = Path(user.token_file).read_text("utf-8").strip() or text
        except (OSError, UnicodeDecodeError) as error:
            if not text:
                reason = getattr(error, "strerror", None) or "the file is not text"
                message = f"{where}: tokenFile {user.token_file}: {reason}"
                raise CredentialError(message, credential="kubeconfig") from error
            _log.warning(
                "%s: kmproxy cannot read tokenFile and sends the user's token instead", where
            )
        if not text:
            message = f"{where}: tokenFile {user.token_file}: the file is empty"
            raise CredentialError(message, credential="kubeconfig")
    if text and not is_token(text):
        raise CredentialError(f"{where}: the token is not valid", credential="kubeconfig")
    return f"Bearer {text}" if text else None
