"""Runs the exec plugin of a kubeconfig: a program that prints a token or a client certificate.

Knows the ExecCredential format and processes. Must not know what the credential is used for. The
output of the plugin is never shown. Its standard error goes to the standard error of kmproxy, as in
client-go.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from kmproxy.client.credentials import is_token
from kmproxy.client.tls import read_source
from kmproxy.config.types import Secret
from kmproxy.errors import CredentialError
from kmproxy.kube.context_options import Cluster, ExecPlugin

MAX_OUTPUT = 1 << 20
"""The most bytes that a plugin may print."""

_HINT = 300


class _Status(msgspec.Struct):
    token: str | None = None
    clientCertificateData: str | None = None  # noqa: N815 - the format's own names
    clientKeyData: str | None = None  # noqa: N815
    expirationTimestamp: str | None = None  # noqa: N815


class _ExecCredential(msgspec.Struct):
    apiVersion: str = ""  # noqa: N815
    kind: str = ""
    status: _Status | None = None


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """The credential that a plugin printed.

    `expires_at` is a Unix time, or None if the plugin named no time.
    """

    token: Secret | None
    cert: Secret | None
    key: Secret | None
    expires_at: float | None


async def run_plugin(
    plugin: ExecPlugin, cluster: Cluster, environment: Mapping[str, str]
) -> ExecCredential:
    """Run a plugin once, and return its credential. Raises CredentialError.

    If the run fails or is cancelled, the plugin is killed, with all processes of its process group.
    It has ended when this function returns, unless the system needs longer than `REAP_TIMEOUT`.
    """
    command = shutil.which(plugin.command, path=environment.get("PATH", os.defpath))
    if command is None:
        hint = " ".join(plugin.install_hint.split())[:_HINT]
        hint = "".join(character for character in hint if character.isprintable())
        what = f"the command {plugin.command!r} is not found or cannot be run"
        raise _problem(f"{what}: {hint}" if hint else what)
    variables = {name: value.reveal() for name, value in plugin.env}
    variables["KUBERNETES_EXEC_INFO"] = json.dumps(_info(plugin, cluster))
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *plugin.args,
            env={**environment, **variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "an argument is not valid"
        raise _problem(f"the command {plugin.command!r} cannot be run: {reason}") from error
    try:
        output = await _output(process)
        status = await process.wait()
    finally:
        await _end(process)
    if status != 0:
        raise _problem(f"the command {plugin.command!r} failed with exit status {status}")
    return _parse(output, plugin)


def _info(plugin: ExecPlugin, cluster: Cluster) -> dict[str, Any]:
    """Return the document of KUBERNETES_EXEC_INFO for the plugin. Raises CredentialError."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster:
        told = {
            "server": cluster.server,
            "tls-server-name": cluster.server_name,
            "insecure-skip-tls-verify": not cluster.verify,
            "certificate-authority-data": None,
            "proxy-url": cluster.proxy_url.reveal() if cluster.proxy_url else None,
            "disable-compression": cluster.disable_compression,
            "config": plugin.cluster_config,
        }
        if cluster.ca is not None:
            try:
                pem = read_source(cluster.ca)
            except OSError as error:
                raise _problem(f"CA {cluster.ca}: {error.strerror}") from error
            told["certificate-authority-data"] = base64.b64encode(pem).decode()
        spec["cluster"] = {key: value for key, value in told.items() if value or key == "config"}
    return {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}


async def _output(process: asyncio.subprocess.Process) -> bytes:
    output = bytearray()
    if process.stdout is not None:
        while piece := await process.stdout.read(65536):
            output += piece
            if len(output) > MAX_OUTPUT:
                raise _problem(f"the output is over {MAX_OUTPUT:,} bytes")
    return bytes(output)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the plugin and its process group, as far as they still run."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # This closes the pipe too: a process in another group may still hold its other end open.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public method
    reaped = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([reaped], timeout=REAP_TIMEOUT)
    finally:
        reaped.cancel()


REAP_TIMEOUT = 1.0
"""Seconds for which the end of a killed plugin is awaited. One stuck in the kernel lasts longer."""


def _parse(output: bytes, plugin: ExecPlugin) -> ExecCredential:
    try:
        found = msgspec.json.decode(output, type=_ExecCredential)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _problem("the output is not an ExecCredential in JSON") from None
    if found.kind != "ExecCredential" or found.apiVersion != plugin.api_version:
        raise _problem(f"the output is not an ExecCredential of {plugin.api_version}")
    status = found.status or _Status()
    token, cert, key = status.token, status.clientCertificateData, status.clientKeyData
    if not token and not cert and not key:
        raise _problem("the output holds neither a token nor a client certificate")
    if bool(cert) != bool(key):
        raise _problem("the output holds only one of client certificate and key")
    if token and not is_token(token.strip()):
        raise _problem("the output's token is not valid")
    return ExecCredential(
        Secret(token.strip()) if token else None,
        Secret(cert) if cert else None,
        Secret(key) if key else None,
        _unix_time(status.expirationTimestamp) if status.expirationTimestamp else None,
    )


def _unix_time(text: str) -> float:
    """Return the Unix time of a time in RFC 3339. Raises CredentialError."""
    try:
        moment = msgspec.convert(text, datetime)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise _problem(
            "the expirationTimestamp is not a time such as 2030-01-31T12:00:00Z"
        ) from None


def _problem(message: str) -> CredentialError:
    return CredentialError(f"exec plugin: {message}", credential="kubeconfig")
