"""A kubeconfig as an identity, as kubernetes_asyncio reads it.

Knows kubeconfig files, what tells one version of them from another, and that
library. Must not know what is asked with them. No error shows what stands in one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import ssl
import traceback
from collections.abc import Awaitable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from kmproxy.errors import ConfigError, CredentialError
from kmproxy.identity import TOKEN_AGE, Identity, is_token
from kmproxy.tls import Clock, Trust
from kmproxy.values import File, Secret, Source, parse_host

if TYPE_CHECKING:
    from kmproxy.proxies import Proxy
    from kmproxy.telemetry import Telemetry

READ_TIMEOUT = 30.0
"""Seconds for a kubeconfig's plugin, or for whoever renews its token, to answer."""

REAP_TIMEOUT = 1.0
"""Seconds for the system to end a plugin that was killed; one stuck in the kernel lasts longer."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


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
        self._reads = 0
        self._reading = asyncio.Lock()

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
        """The token of the context's user, if it has one; the last good one if that fails.

        Raises CredentialError if it is for another server than the one that said 401.
        """
        if anew or self._clock() - self._read_at >= TOKEN_AGE:
            server, reads = self.server, self._reads
            async with self._reading:
                if self._reads == reads:  # one plugin for all who were refused meanwhile
                    await self._read_again(anew=anew)
            if anew and self.server != server:
                message = f"{self._path}: it leads to another server since this was asked"
                raise CredentialError(message, credential="kubeconfig")
        return self._authorization if self.server.startswith("https:") else None

    async def _read_again(self, *, anew: bool) -> None:
        try:
            await self._read(anew=anew)
        except CredentialError as error:
            _log.warning("%s; the last good one stays in use", error)
            self._telemetry.credential_errors.labels("kubeconfig").inc()
        self._reads += 1

    async def _read(self, *, anew: bool) -> None:
        from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - its price is memory
        from kubernetes_asyncio.config import kube_config, openid  # noqa: PLC0415

        # It logs what stands in a kubeconfig, verifies no certificate of an OIDC provider, and
        # closes no file.
        logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL)
        openid.OpenIDRequestor._get_connector = _connector  # type: ignore[assignment]  # noqa: SLF001
        kube_config.FileOrData._create_temp_file_with_content = _put_on_disk  # type: ignore[assignment]  # noqa: SLF001
        self._read_at = self._clock()
        modified = _modified(self._path)
        settings, loader = Configuration(), self._loader
        try:
            if anew or modified != self._modified:
                loader = await _in_time(
                    kube_config.load_kube_config(
                        self._path, client_configuration=settings, persist_config=False
                    )
                )
            elif "exec" in (loader._user or ()) and not hasattr(  # noqa: SLF001 - it has no other word for it
                loader, "exec_plugin_expiry"
            ):
                return  # without an expiry its credential holds until it is refused
            else:
                await _in_time(loader.load_and_set(settings))
        except Exception as error:
            raise CredentialError(f"{self._path}: {_first_line(error)}") from error
        finally:
            inline = _taken_from_disk(kube_config)
        authorization = settings.api_key.get("BearerToken")
        if authorization is not None:
            authorization = _header(self._path, authorization)
        server = _server(self._path, str(settings.host))
        proxy = _proxy(self._path, settings.proxy)
        server_name = _server_name(self._path, settings.tls_server_name)
        skip = loader._cluster.safe_get("insecure-skip-tls-verify")  # noqa: SLF001
        if not isinstance(skip, bool | None):  # to the library "false" in quotes is true
            message = "insecure-skip-tls-verify is neither true nor false"
            raise CredentialError(f"{self._path}: {message}")
        for name in ("cert_file", "key_file"):  # or it would not make them again
            vars(loader).pop(name, None)
        self._loader, self._modified = loader, modified
        self.server, self.server_name, self.proxy = server, server_name, proxy
        self._trust = Trust(
            _source(settings.ssl_ca_cert, inline),
            _source(settings.cert_file, inline),
            _source(settings.key_file, inline),
            verify=settings.verify_ssl,
        )
        self._authorization = authorization


async def _in_time(reading: Awaitable[_T]) -> _T:
    """What kubernetes_asyncio reads. Raises TimeoutError.

    A plugin that is no longer waited for is killed, and is gone when this returns;
    what it has started itself is not.
    """
    async with asyncio.timeout(READ_TIMEOUT):
        try:
            return await reading
        except asyncio.CancelledError as error:
            # The library would leave it running, and only its frame knows of it.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                for value in frame.f_locals.values():
                    if isinstance(value, asyncio.subprocess.Process):
                        await _kill(value)
            raise


async def _kill(process: asyncio.subprocess.Process) -> None:
    # Closed with its pipes, which those that it started may hold open.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no word of its own
    reaped = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([reaped], timeout=REAP_TIMEOUT)
    finally:
        reaped.cancel()


def _server(path: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        good = url.startswith(("https://", "http://")) and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if "@" in url:  # it would be shown wherever the server is
        raise CredentialError(f"{path}: the server's URL bears a user or a password")
    if not good:
        raise CredentialError(f"{path}: the server's URL is not one that begins with https://")
    return url.rstrip("/")


def _server_name(path: str, name: object) -> str | None:
    try:
        return parse_host(str(name)) if name else None
    except ValueError as error:
        raise CredentialError(f"{path}: tls-server-name: {error}") from error


def _proxy(path: str, url: object) -> Proxy | None:
    if not url:
        return None
    if not isinstance(url, str):
        raise CredentialError(f"{path}: proxy-url: it is no text")
    from kmproxy.proxies import parse_proxy  # noqa: PLC0415 - few have a proxy

    try:
        return parse_proxy(url)
    except ValueError as error:
        raise CredentialError(f"{path}: proxy-url: {error}") from error


def _source(path: str | None, inline: Mapping[str, Source]) -> Source | None:
    return inline.get(path, File(path)) if path else None


def _connector(requestor: Any) -> aiohttp.TCPConnector:
    """To an OIDC provider, by the CA that the kubeconfig names or the system's."""
    pem = requestor._ssl_ca_cert  # noqa: SLF001
    return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=pem))


def _put_on_disk(_: object, content: str | bytes) -> str:
    """Write what is text in a kubeconfig to a file, for the library to look at: its name."""
    from kubernetes_asyncio.config import kube_config  # noqa: PLC0415

    with NamedTemporaryFile(delete=False) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    kube_config._temp_files[file.name] = file.name  # noqa: SLF001
    return file.name


def _taken_from_disk(library: Any) -> dict[str, Source]:
    """What was text in a kubeconfig, by the files that it was written to.

    They are removed: a key is not left on a disk, nor lost to who tidies it up.
    """
    files = library._temp_files.values()  # noqa: SLF001
    texts: dict[str, Source] = {
        file: Secret(Path(file).read_text("utf-8", "replace")) for file in files
    }
    library._cleanup_temp_files()  # noqa: SLF001
    return texts


def _header(path: str, authorization: str) -> str:
    """A header's value; a token that a file holds comes with its newline."""
    scheme, _, token = authorization.strip().partition(" ")
    if not is_token(scheme) or not is_token(token.strip()):
        raise CredentialError(f"{path}: its token is not a token")
    return f"{scheme} {token.strip()}"


def _modified(path: str) -> tuple[tuple[int, int, int], ...]:
    """What tells one version of a kubeconfig from another.

    `path` may be several, as $KUBECONFIG has them; of those, some may be
    missing. Raises CredentialError if there is nothing to read.
    """
    files = [Path(each).expanduser() for each in path.split(os.pathsep) if each]
    present = [file for file in files if os.access(file, os.F_OK)] or files
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
    if isinstance(error, TimeoutError):
        return f"no credential within {READ_TIMEOUT:g} s, its plugin hangs"
    if name in {"ConfigException", "FileNotFoundError", "PermissionError"}:
        # An entry that lacks a key is quoted as a whole, behind the name of its file.
        return str(error).partition("\n")[0].partition("/{")[0]
    return f"it is not a kubeconfig ({name})"
