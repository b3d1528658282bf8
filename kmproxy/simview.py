"""What a simulated API server shows of its store: lists, the lines of a watch, discovery.

Knows selectors, pages, bookmarks, and objects of which only the metadata is wanted. Decides and
waits for nothing. Must not know connections, clocks, who asks, or anything of the proxy under
test.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from kmproxy.simstore import KINDS, Object, StatusError, Store

REVIEWS = {
    "selfsubjectaccessreviews": "authorization.k8s.io",
    "subjectaccessreviews": "authorization.k8s.io",
    "tokenreviews": "authentication.k8s.io",
}
"""The kinds of review, each with its API group."""


class View:
    """A resource of a store as a request wants it: its query parameters and its Accept header."""

    def __init__(
        self, store: Store, resource: str, query: Mapping[str, str], accept: str = ""
    ) -> None:
        self.query = query
        self._store = store
        self._resource = resource
        self._metadata_only = "as=PartialObjectMetadata" in accept

    def __repr__(self) -> str:
        return f"<View of {self._resource}{', metadata only' if self._metadata_only else ''}>"

    def selects(self, item: Object) -> bool:
        """Tell whether the selectors (`metadata.name=N`, `KEY=VALUE` and `KEY`) let it through."""
        known = {"metadata.name": item["metadata"]["name"]}
        labels = item["metadata"].get("labels", {})
        for given, clauses in ((known, "fieldSelector"), (labels, "labelSelector")):
            for clause in filter(None, self.query.get(clauses, "").split(",")):
                key, equals, value = clause.replace("==", "=").partition("=")
                if given.get(key) != value if equals else key not in given:
                    return False
        return True

    def shape(self, item: Object) -> Object:
        """Return an object as it is, or as a PartialObjectMetadata."""
        if not self._metadata_only:
            return item
        head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        return {**head, "metadata": item["metadata"]}

    def items(self) -> list[Object]:
        """Return what the selectors let through, by name, not yet in shape."""
        everything = sorted(self._store.objects[self._resource].items())
        return [item for _, item in everything if self.selects(item)]

    def document(self, items: list[Object], metadata: Object) -> Object:
        """Return a list object of `items`."""
        if self._metadata_only:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            items = [self.shape(each) for each in items]
        else:
            head = {"kind": f"{KINDS[self._resource]}List", "apiVersion": "v1"}
            items = [_without(each, "kind", "apiVersion") for each in items]
        return {**head, "metadata": metadata, "items": items}

    def initial(self) -> tuple[int, list[bytes]]:
        """Return the lines of what is there, and the version they are of."""
        version = self._store.version
        lines = [event_line("ADDED", self.shape(item)) for item in self.items()]
        if self.query.get("sendInitialEvents") == "true":
            lines.append(self.bookmark(version, initial=True))
        return version, lines

    def since(self, version: int) -> tuple[int, list[bytes]]:
        """Return the lines of what happened after `version`, and the version they lead to."""
        lines = []
        for at, kind, item in self._store.since(self._resource, version):
            version = at
            if self.selects(item):
                lines.append(event_line(kind, self.shape(item)))
        return version, lines

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """Return the line that says a watch has got to `version`."""
        metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        item = {"kind": KINDS[self._resource], "apiVersion": "v1", "metadata": metadata}
        return event_line("BOOKMARK", self.shape(item))


class Pages:
    """The lists of a store, and what is left of those asked for in pages.

    All pages of a list are of the moment of the first. The last 1000 can be continued.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._left: dict[str, tuple[int, list[Object]]] = {}

    def __repr__(self) -> str:
        return f"<Pages {len(self._left)} to continue>"

    def turn(self, view: View) -> Object:
        """Return the list, or the page of it, that is asked for."""
        query = view.query
        if token := query.get("continue"):
            if token not in self._left:
                raise StatusError(410, "The provided continue parameter is too old")
            version, items = self._left[token]
        else:
            self._store.reached(query.get("resourceVersion", ""))
            version, items = self._store.version, view.items()
        metadata: Object = {"resourceVersion": str(version)}
        limit = int(query.get("limit") or 0)
        if limit and len(items) > limit:
            metadata["continue"] = secrets.token_urlsafe(16)
            metadata["remainingItemCount"] = len(items) - limit
            self._left[metadata["continue"]] = (version, items[limit:])
            while len(self._left) > 1000:
                del self._left[next(iter(self._left))]
            items = items[:limit]
        return view.document(items, metadata)

    def clear(self) -> None:
        """Let no list be continued."""
        self._left.clear()


def event_line(kind: str, item: Object) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"


def _without(item: Object, *keys: str) -> Object:
    return {key: value for key, value in item.items() if key not in keys}


def _resource_list(version: str, resources: list[tuple[str, str, str, list[str]]]) -> Object:
    listed = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "shortNames": [short] if short else [],
            "namespaced": False,
            "kind": kind,
            "verbs": verbs,
        }
        for plural, short, kind, verbs in resources
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


_GROUPS = sorted(set(REVIEWS.values()))
_ALL_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
DISCOVERY: dict[str, Object] = {
    "version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"},
    "api": {"kind": "APIVersions", "versions": ["v1"]},
    "apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [version], "preferredVersion": version}
            for group in _GROUPS
            for version in ({"groupVersion": f"{group}/v1", "version": "v1"},)
        ],
    },
    "api/v1": _resource_list(
        "v1", [("namespaces", "ns", "Namespace", _ALL_VERBS), ("nodes", "no", "Node", _ALL_VERBS)]
    ),
}
"""The documents by which a client finds out what the server has, by their path."""
for _group in _GROUPS:
    DISCOVERY[f"apis/{_group}/v1"] = _resource_list(
        f"{_group}/v1",
        [(name, "", name.title(), ["create"]) for name, of in REVIEWS.items() if of == _group],
    )
