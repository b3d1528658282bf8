"""The settings of kubeconfigs: merges several of them, and finds their current context.

Knows which file decides about an entry. Must not read files, or know the time or which server is
asked. A setting that cannot be followed is an error that names the file, the entry and the key. So
no request is sent with another identity. No error shows a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from kmproxy.errors import CredentialError
from kmproxy.kube.context_entries import EntryError, read_cluster, read_user
from kmproxy.kube.context_options import Selected, User
from kmproxy.kube.kubeconfig_format import parse_kubeconfig, shown_name

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cluster, user or context, and the file that defines it."""

    file: str
    value: Any


class Kubeconfigs:
    """Several kubeconfigs, merged into one.

    The first file that names an entry defines it. The first one that names a current context
    decides.
    """

    def __init__(self) -> None:
        self._current = ""
        self._entries: dict[str, dict[str, _Entry]] = {"clusters": {}, "users": {}, "contexts": {}}
        self._files: list[str] = []

    def add(self, file: str, data: bytes) -> None:
        """Add the content of the next file. Raises CredentialError.

        `file` is its absolute path.
        """
        try:
            found = parse_kubeconfig(data)
        except ValueError as error:
            raise CredentialError(f"{file}: {error}", credential="kubeconfig") from None
        self._files.append(file)
        self._current = self._current or found.current_context
        for kind, known in self._entries.items():
            named = [each for each in getattr(found, kind) if each is not None]
            if twice := _first_twice(each.name for each in named):
                message = f"two {kind} have the name {shown_name(twice)}"
                raise CredentialError(f"{file}: {message}", credential="kubeconfig")
            for each in named:
                value = getattr(each, kind.removesuffix("s"))
                known.setdefault(each.name, _Entry(file, value))

    def select(self) -> Selected:
        """Return the current context. Raises CredentialError that names its problems."""
        files = ", ".join(self._files)
        contexts = self._entries["contexts"]
        context = contexts.get(self._current)
        if context is None and not self._current:
            raise self._problem(files, ["current-context is missing", *_names(contexts)])
        if context is None:
            why = f"the current-context {shown_name(self._current)} is not in the file"
            raise self._problem(files, [why, *_names(contexts)])
        where = f"context {shown_name(self._current)}"
        cluster = self._entries["clusters"].get(context.value.cluster)
        if cluster is None:
            why = f"{where}: the file has no cluster {shown_name(context.value.cluster)}"
            raise self._problem(context.file, [why, *_names(self._entries["clusters"])])
        user = self._entries["users"].get(context.value.user)
        if user is None and context.value.user:
            why = f"{where}: the file has no user {shown_name(context.value.user)}"
            raise self._problem(context.file, [why, *_names(self._entries["users"])])
        name = f"cluster {shown_name(context.value.cluster)}"
        try:
            selected = read_cluster(cluster.value, PurePath(cluster.file).parent)
        except EntryError as error:
            raise self._problem(f"{cluster.file}: {name}", error.problems) from None
        if user is None:  # without a user the requests are anonymous
            return Selected(selected, User(""))
        name = f"user {shown_name(context.value.user)}"
        try:
            extensions = [each for each in cluster.value.extensions if each is not None]
            found = read_user(
                user.value, context.value.user, PurePath(user.file).parent, extensions
            )
        except EntryError as error:
            raise self._problem(f"{user.file}: {name}", error.problems) from None
        if "://" not in cluster.value.server and (selected.ca or found != User(found.name)):
            name = f"cluster {shown_name(context.value.cluster)}"
            raise self._problem(f"{cluster.file}: {name}", [_SCHEME])
        if selected.server.startswith("http:"):  # no credential is sent without TLS
            found = User(found.name, headers=found.headers)
        return Selected(selected, found)

    def _problem(self, where: str, problems: Sequence[str]) -> CredentialError:
        return CredentialError(f"{where}: {'; '.join(problems)}", credential="kubeconfig")


_SCHEME = (
    "server: write https:// first; without a scheme, requests are plain HTTP without a credential"
)


def _first_twice(names: Iterable[str]) -> str | None:
    seen = set()
    for name in names:
        if name in seen:
            return name or "''"
        seen.add(name)
    return None


def _names(entries: Mapping[str, _Entry]) -> Iterator[str]:
    """Yield a text with the names of the entries, so that a misspelt name is easy to find."""
    if entries:
        more = ", ..." if len(entries) > _NAMES_SHOWN else ""
        names = ", ".join(shown_name(name) for name in list(entries)[:_NAMES_SHOWN])
        yield f"the file has {names}{more}"
