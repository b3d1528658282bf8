"""The format of a kubeconfig: every key that client-go's loader reads, and the type of its value.

Must not know what a key means. Unknown keys are ignored, as in client-go. A value of the wrong type
is an error that names the key. No error shows a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kmproxy.kube.go_yaml import load

Texts = list[str | None]


class Extension(msgspec.Struct):
    """Data that a program other than kubectl keeps in an entry."""

    name: str = ""
    extension: Any = None


class ClusterEntry(msgspec.Struct, rename="kebab"):
    """The settings of a cluster in a kubeconfig."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: list[Extension | None] = []


class Variable(msgspec.Struct):
    """A variable in the environment of an exec plugin."""

    name: str = ""
    value: str = ""


class ExecEntry(msgspec.Struct, rename="camel"):
    """The settings of an exec plugin: a program that gives credentials."""

    command: str = ""
    args: Texts = []
    env: list[Variable | None] = []
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class AuthProviderEntry(msgspec.Struct):
    """The settings of a token provider that is built into clients."""

    name: str = ""
    config: dict[str, str] = {}


class UserEntry(msgspec.Struct, rename="kebab"):
    """The settings of a user in a kubeconfig."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    as_: str = msgspec.field(default="", name="as")
    as_uid: str = ""
    as_groups: Texts = []
    as_user_extra: dict[str, Texts] = {}
    username: str = ""
    password: str = ""
    auth_provider: AuthProviderEntry | None = None
    exec: ExecEntry | None = None


class ContextEntry(msgspec.Struct):
    """The settings of a context: the names of a cluster and of a user."""

    cluster: str = ""
    user: str = ""


class NamedCluster(msgspec.Struct):
    """A cluster and its name."""

    name: str = ""
    cluster: ClusterEntry = msgspec.field(default_factory=ClusterEntry)


class NamedUser(msgspec.Struct):
    """A user and its name."""

    name: str = ""
    user: UserEntry = msgspec.field(default_factory=UserEntry)


class NamedContext(msgspec.Struct):
    """A context and its name."""

    name: str = ""
    context: ContextEntry = msgspec.field(default_factory=ContextEntry)


class KubeconfigFile(msgspec.Struct):
    """A whole kubeconfig file."""

    kind: str = "Config"
    api_version: str = msgspec.field(default="v1", name="apiVersion")
    current_context: str = msgspec.field(default="", name="current-context")
    clusters: list[NamedCluster | None] = []
    users: list[NamedUser | None] = []
    contexts: list[NamedContext | None] = []


def parse_kubeconfig(data: bytes) -> KubeconfigFile:
    """Parse a kubeconfig as client-go does. A null counts as no value. Raises ValueError."""
    document = load(data)
    if document is None:
        return KubeconfigFile()
    if not isinstance(document, dict):
        raise ValueError("the file is not a kubeconfig: a mapping is expected")  # noqa: TRY004 - of the text
    document = _without_nulls(document)
    try:
        found = msgspec.convert(document, KubeconfigFile)
    except msgspec.ValidationError as error:
        raise ValueError(_mismatch(str(error), document)) from None
    if (found.kind or "Config", found.api_version or "v1") != ("Config", "v1"):
        raise ValueError("the file is not a kubeconfig: kind is not Config, or apiVersion not v1")
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: each if key == "extension" else _without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


_AT = re.compile(r"(.*) - at `\$\.?([^`]*)`", re.DOTALL)
_KINDS = {"str": "text", "bool": "true or false", "array": "a list", "object": "a mapping"}


def _mismatch(message: str, document: Mapping[str, Any]) -> str:
    """Return a message that names the key with a value of the wrong type, in kubeconfig terms."""
    match = _AT.fullmatch(message)
    what, path = (match[1], match[2]) if match else (message, "")
    kinds = re.findall(r"`([a-z]+)", what)
    expected = _KINDS.get(kinds[0], kinds[0]) if kinds else "another kind of value"
    said = f"{path}: {expected} is expected"
    if kinds[1:] and kinds[0] == "str" and kinds[-1] in {"int", "float", "bool"}:
        said += ": put it in quotes"
    if (entry := re.match(r"(users|clusters|contexts)\[(\d+)\]", path)) and match:
        each = document[entry[1]][int(entry[2])]
        name = each.get("name") if isinstance(each, dict) else None
        said += (
            f" ({entry[1].removesuffix('s')} {shown_name(name)})" if isinstance(name, str) else ""
        )
    return said


def shown_name(name: str) -> str:
    """Return the name of an entry for an error message: at most 60 characters of it."""
    return repr(name if len(name) <= 60 else f"{name[:60]}...")
