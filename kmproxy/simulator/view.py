"""The views of a simulated API server's store: paths, lists, lines of a watch, discovery.

Knows paths, selectors, pages, bookmarks, and requests for the metadata of objects alone.
Makes no decisions and never waits. Must not know connections, clocks, users, or anything of the
proxy under test.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from kmproxy.simulator.objects import KINDS, Object
from kmproxy.simulator.statuses import StatusError
from kmproxy.simulator.store import Store

REVIEWS = {
    "selfsubjectaccessreviews": "authorization.k8s.io",
    "subjectaccessreviews": "authorization.k8s.io",
    "tokenreviews": "authentication.k8s.io",
}
"""The kinds of review, each with its API group."""


@dataclass(frozen=True, slots=True)
class Place:
    """The target of a path: a resource, in one namespace or all (""), one object or all ("")."""

    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def scope(self) -> dict[str, str]:
        """The API group and the namespace, each only if it is not empty."""
        group = KINDS[self.resource].version.rpartition("/")[0]
        found = {"group": group, "namespace": self.namespace}
        return {name: value for name, value in found.items() if value}

    def key(self, name: str) -> str:
        """Return the key of an object with this name, in the namespace of the place."""
        return f"{self.namespace}/{name}" if self.namespace else name


def place(path: str) -> Place | None:
    """Return the place of a path without its outer slashes, or None if it has none."""
    match path.split("/"):
        case ["api", version, *rest]:
            pass
        case ["apis", group, version, *rest]:
            version = f"{group}/{version}"
        case _:
            return None
    match rest:
        case ["namespaces", namespace, resource, *name]:
            found = Place(resource, namespace, "".join(name))
        case [resource, *name]:
            found = Place(resource, "", "".join(name))
        case _:
            return None
    kind = KINDS.get(found.resource)
    if kind is None or kind.version != version or len(name) > 1:
        return None
    if kind.namespaced != bool(found.namespace) and (found.namespace or found.name):
        return None
    return found


class View:
    """A resource of a store as a request asks for it, by its query parameters and Accept header.

    The view is of one namespace if `namespace` is given, else of all namespaces.
    """

    def __init__(
        self,
        store: Store,
        resource: str,
        query: Mapping[str, str],
        accept: str = "",
        namespace: str = "",
    ) -> None:
        self.query = query
        self._store = store
        self.resource = resource
        self._namespace = namespace
        self._metadata_only = "as=PartialObjectMetadata" in accept

    def __repr__(self) -> str:
        return f"<View of {self.resource}{', metadata only' if self._metadata_only else ''}>"

    def selects(self, item: Object) -> bool:
        """Tell whether an object is in the namespace and the selectors match it.

        The selectors are `metadata.name=N`, `spec.nodeName=N`, `KEY=VALUE` and `KEY`.
        """
        if self._namespace not in ("", item["metadata"].get("namespace")):
            return False
        known = {"metadata.name": item["metadata"]["name"]}
        known["spec.nodeName"] = item.get("spec", {}).get("nodeName")
        labels = item["metadata"].get("labels", {})
        for given, clauses in ((known, "fieldSelector"), (labels, "labelSelector")):
            for clause in filter(None, self.query.get(clauses, "").split(",")):
                key, equals, value = clause.replace("==", "=").partition("=")
                if given.get(key) != value if equals else key not in given:
                    return False
        return True

    def shape(self, item: Object) -> Object:
        """Return an object unchanged, or as a PartialObjectMetadata."""
        if not self._metadata_only:
            return item
        head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        return {**head, "metadata": item["metadata"]}

    def items(self) -> list[Object]:
        """Return the selected objects, sorted by key, before `shape`."""
        everything = sorted(self._store.objects[self.resource].items())
        return [item for _, item in everything if self.selects(item)]

    def document(self, items: list[Object], metadata: Object) -> Object:
        """Return a list object of `items`."""
        if self._metadata_only:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            items = [self.shape(each) for each in items]
        else:
            kind = KINDS[self.resource]
            head = {"kind": f"{kind.name}List", "apiVersion": kind.version}
            items = [_without(each, "kind", "apiVersion") for each in items]
        return {**head, "metadata": metadata, "items": items}

    def initial(self) -> tuple[int, list[bytes]]:
        """Return the version of the store, and lines for the existing objects.

        With `sendInitialEvents` a bookmark follows these lines.
        """
        version = self._store.version
        lines = [event_line("ADDED", self.shape(item)) for item in self.items()]
        if self.query.get("sendInitialEvents") == "true":
            lines.append(self.bookmark(version, initial=True))
        return version, lines

    def since(self, version: int) -> tuple[int, list[bytes]]:
        """Return the version after the last change, and lines for the changes after `version`."""
        lines = []
        for at, kind, item in self._store.since(self.resource, version):
            version = at
            if self.selects(item):
                lines.append(event_line(kind, self.shape(item)))
        return version, lines

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """Return the line of a bookmark: the watch has reached `version`."""
        metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = KINDS[self.resource]
        item = {"kind": kind.name, "apiVersion": kind.version, "metadata": metadata}
        return event_line("BOOKMARK", self.shape(item))


class Pages:
    """The lists of a store, and the remaining items of lists that are read in pages.

    All pages of a list show the state at its first page. The last 1000 lists can be continued. As
    with the cache of a real API server, a list of any version ("0") has no pages. A limit with
    another version asks for exactly that version, and only the newest version is available.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._left: dict[str, tuple[int, list[Object]]] = {}

    def __repr__(self) -> str:
        return f"<Pages {len(self._left)} to continue>"

    def turn(self, view: View) -> Object:
        """Return the list that a view asks for, or a page of it."""
        query = view.query
        limit, wanted = int(query.get("limit") or 0), query.get("resourceVersion", "")
        if token := query.get("continue"):
            if token not in self._left:
                raise StatusError(410, "The provided continue parameter is too old")
            version, items = self._left[token]
        else:
            version, items = self._store.version, view.items()
            if limit and wanted not in ("", "0"):
                self._store.is_now(wanted)
            else:
                self._store.reached(wanted)
        metadata: Object = {"resourceVersion": str(version)}
        if wanted == "0" and KINDS[view.resource].cached:
            limit = 0
        if limit and len(items) > limit:
            metadata["continue"] = secrets.token_urlsafe(16)
            metadata["remainingItemCount"] = len(items) - limit
            self._left[metadata["continue"]] = (version, items[limit:])
            while len(self._left) > 1000:
                del self._left[next(iter(self._left))]
            items = items[:limit]
        return view.document(items, metadata)

    def clear(self) -> None:
        """Forget all lists, so none can be continued."""
        self._left.clear()


def event_line(kind: str, item: Object) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"


def _without(item: Object, *keys: str) -> Object:
    return {key: value for key, value in item.items() if key not in keys}


_ALL_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def _resource_list(version: str) -> Object:
    """The APIResourceList of an API version: its objects and reviews."""
    group = version.rpartition("/")[0]
    listed = [
        _resource(plural, kind.name, kind.short, namespaced=kind.namespaced, verbs=_ALL_VERBS)
        for plural, kind in KINDS.items()
        if kind.version == version
    ]
    listed += [
        _resource(plural, plural.title(), "", namespaced=False, verbs=["create"])
        for plural, of in REVIEWS.items()
        if of == group
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


def _resource(plural: str, kind: str, short: str, *, namespaced: bool, verbs: list[str]) -> Object:
    return {
        "name": plural,
        "singularName": kind.lower(),
        "shortNames": [short] if short else [],
        "namespaced": namespaced,
        "kind": kind,
        "verbs": verbs,
    }


_VERSIONS = sorted(
    {kind.version for kind in KINDS.values()} | {f"{group}/v1" for group in REVIEWS.values()}
)
DISCOVERY: dict[str, Object] = {
    "version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"},
    "api": {"kind": "APIVersions", "versions": ["v1"]},
    "apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [known], "preferredVersion": known}
            for version in _VERSIONS
            if (group := version.rpartition("/")[0])
            for known in ({"groupVersion": version, "version": "v1"},)
        ],
    },
}
"""The documents that tell a client which APIs the server has, by path."""
for _version in _VERSIONS:
    _path = f"apis/{_version}" if "/" in _version else f"api/{_version}"
    DISCOVERY[_path] = _resource_list(_version)
