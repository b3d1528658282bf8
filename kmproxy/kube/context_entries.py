"""The entries of a cluster and of a user in a kubeconfig, read into values.

Knows every key of these entries that client-go reads, and which of them kmproxy does not support.
Must not know which entry is the current one, or read files. No error shows a secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

from kmproxy.config.proxies import Headers, parse_proxy
from kmproxy.config.types import File, Secret, Source, parse_host
from kmproxy.kube.context_options import Cluster, ExecPlugin, OidcProvider, User
from kmproxy.kube.kubeconfig_format import (
    AuthProviderEntry,
    ClusterEntry,
    ExecEntry,
    Extension,
    UserEntry,
    shown_name,
)

EXEC_VERSIONS: Final = (
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
)

_EXEC_EXTENSION = "client.authentication.k8s.io/exec"

_REMOVED = {
    "gcp": "use an exec plugin, gke-gcloud-auth-plugin",
    "azure": "use an exec plugin, kubelogin",
}


class EntryError(Exception):
    """An entry that cannot be followed. Each of its `problems` names a key."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__()


def read_cluster(cluster: ClusterEntry, folder: PurePath) -> Cluster:
    """Return the cluster of an entry in a file of this folder. Raises EntryError."""
    problems: list[str] = []
    server = _server(cluster.server, problems)
    name = proxy = None
    if cluster.tls_server_name:
        try:
            name = parse_host(cluster.tls_server_name)
        except ValueError:
            problems.append("tls-server-name: the value is neither a host name nor an IP address")
    if cluster.proxy_url:
        try:
            proxy = parse_proxy(cluster.proxy_url)
        except ValueError as error:
            problems.append(f"proxy-url: {error}")
    ca = _pem(cluster, "certificate_authority", folder, problems)
    if ca is not None and cluster.insecure_skip_tls_verify:
        problems.append(
            "insecure-skip-tls-verify makes no sense beside a certificate-authority: remove one"
        )
    if problems:
        raise EntryError(problems)
    return Cluster(
        server,
        name,
        not cluster.insecure_skip_tls_verify,
        ca,
        proxy,
        Secret(cluster.proxy_url) if cluster.proxy_url else None,
        cluster.disable_compression,
    )


def _server(url: str, problems: list[str]) -> str:
    if not url:
        problems.append("server: the value is missing")
        return ""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        good = parts.scheme in {"https", "http"} and parts.hostname and parts.port != 0
        good = good and url.isprintable() and " " not in url
        good = good and ("://" in url or not parts.path.strip("/"))
    except ValueError:
        good = False
    if "@" in url:  # a password in it would be shown wherever the server is shown
        problems.append("server: the URL must not contain a user or a password")
    elif not good:
        problems.append("server: the value is not a URL that begins with https://")
    else:
        return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return ""


def _pem(entry: object, key: str, folder: PurePath, problems: list[str]) -> Source | None:
    """Return the PEM text in the kubeconfig itself, else the file that it names.

    If both are given, the text is used, as in Go.
    """
    data, path = getattr(entry, f"{key}_data"), getattr(entry, key)
    if data:
        try:
            pem = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            problems.append(f"{key.replace('_', '-')}-data: the value is not base64")
            return None
        return Secret(pem.decode("utf-8", "replace"))
    return File(str(folder / path)) if path else None


def read_user(
    user: UserEntry, name: str, folder: PurePath, extensions: Sequence[Extension]
) -> User:
    """Return the user of an entry in a file of this folder. Raises EntryError.

    `extensions` are those of the cluster, which an exec plugin is told.
    """
    problems: list[str] = []
    cert = _pem(user, "client_certificate", folder, problems)
    key = _pem(user, "client_key", folder, problems)
    if cert is not None and key is None and not problems:
        problems.append("client-key: the value is missing, and client-certificate needs it")
    login = (user.username, Secret(user.password)) if user.username else None
    if user.password and not user.username:
        problems.append("username: the value is missing, and password needs it")
    if ":" in user.username:
        problems.append("username: the value must not contain a colon")
    if login and (user.token or user.token_file):
        problems.append("token and username exclude each other: remove one")
    if user.exec and user.auth_provider:
        problems.append("exec and auth-provider exclude each other: remove one")
    found = User(
        name,
        Secret(user.token) if user.token else None,
        str(folder / user.token_file) if user.token_file else None,
        login,
        cert,
        key if cert is not None else None,
        _impersonation(user, problems),
    )
    plugin: ExecPlugin | OidcProvider | None = None
    if user.exec is not None:
        plugin = _exec(user.exec, folder, extensions, problems)
    elif user.auth_provider is not None:
        plugin = _oidc(user.auth_provider, folder, problems)
    if problems:
        raise EntryError(problems)
    # As in client-go: an exec plugin runs only if there is no other credential, OIDC gives a token.
    given = found.token or found.token_file or found.login
    if given or (isinstance(plugin, ExecPlugin) and cert is not None):
        return found
    return replace(found, plugin=plugin)


def _impersonation(user: UserEntry, problems: list[str]) -> Headers:
    values = [("as", "Impersonate-User", user.as_), ("as-uid", "Impersonate-Uid", user.as_uid)]
    values += [("as-groups", "Impersonate-Group", each or "") for each in user.as_groups]
    values += [
        ("as-user-extra", f"Impersonate-Extra-{_escaped(key)}", each or "")
        for key, texts in user.as_user_extra.items()
        for each in texts
    ]
    for key, _, text in values:
        if not all(character == "\t" or " " <= character != "\x7f" for character in text):
            problems.append(f"{key}: the value holds a character that no header may contain")
    if not user.as_ and (user.as_uid or user.as_groups or user.as_user_extra):
        problems.append("as: the value is missing, and as-uid, as-groups, as-user-extra need it")
    sent = [each for each in values if each[2] or each[0] not in {"as", "as-uid"}]
    return tuple((name, Secret(text)) for _, name, text in sent)


def _escaped(key: str) -> str:
    """Return a key of `as-user-extra` as part of a header name (RFC 7230), in percent encoding."""
    legal = b"!#$&'*+-.^_`|~"
    return "".join(
        chr(byte) if byte in legal or (chr(byte).isalnum() and byte < 128) else f"%{byte:02X}"
        for byte in key.encode()
    )


def _exec(
    plugin: ExecEntry, folder: PurePath, extensions: Sequence[Extension], problems: list[str]
) -> ExecPlugin:
    if not plugin.command:
        problems.append("exec.command: the value is missing")
    if plugin.api_version not in EXEC_VERSIONS:
        problems.append(f"exec.apiVersion: the value is not one of {', '.join(EXEC_VERSIONS)}")
    if plugin.interactive_mode == "Always":
        problems.append("exec.interactiveMode: Always is not supported: kmproxy has no terminal")
    elif plugin.interactive_mode not in {"", "Never", "IfAvailable"}:
        problems.append("exec.interactiveMode: the value is not one of Never, IfAvailable")
    variables = [each for each in plugin.env if each is not None]
    if any(not each.name or "=" in each.name or "\0" in each.name for each in variables):
        problems.append("exec.env: a variable has no name, or a name that is not allowed")
    texts = [plugin.command, *(each or "" for each in plugin.args), *(e.value for e in variables)]
    if any("\0" in text for text in texts):
        problems.append("exec: a text holds a null character")
    configs = [each.extension for each in extensions if each.name == _EXEC_EXTENSION]
    command = plugin.command
    return ExecPlugin(
        str(folder / command) if "/" in command else command,
        tuple(each or "" for each in plugin.args),
        tuple((each.name, Secret(each.value)) for each in variables),
        plugin.api_version,
        plugin.install_hint,
        plugin.provide_cluster_info,
        configs[0] if configs else None,
    )


def _oidc(
    provider: AuthProviderEntry, folder: PurePath, problems: list[str]
) -> OidcProvider | None:
    config = provider.config
    if provider.name != "oidc":
        what = _REMOVED.get(provider.name, "use oidc, or an exec plugin")
        problems.append(f"auth-provider {shown_name(provider.name)} is not supported: {what}")
        return None
    needed = [key for key in ("idp-issuer-url", "client-id") if not config.get(key)]
    problems += [f"auth-provider.config.{key}: the value is missing" for key in needed]
    ca: Source | None = None
    if data := config.get("idp-certificate-authority-data"):
        try:
            pem = base64.b64decode("".join(data.split()), validate=True)
            ca = Secret(pem.decode("utf-8", "replace"))
        except (binascii.Error, ValueError):
            key = "idp-certificate-authority-data"
            problems.append(f"auth-provider.config.{key}: the value is not base64")
    elif path := config.get("idp-certificate-authority"):
        ca = File(str(folder / path))
    id_token, refresh = config.get("id-token"), config.get("refresh-token")
    if not id_token and not refresh:
        problems.append("auth-provider.config: id-token and refresh-token are both missing")
    return OidcProvider(
        config.get("idp-issuer-url", ""),
        config.get("client-id", ""),
        Secret(config.get("client-secret", "")),
        Secret(id_token) if id_token else None,
        Secret(refresh) if refresh else None,
        ca,
    )
