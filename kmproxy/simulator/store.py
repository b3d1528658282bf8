"""The objects of a simulated API server, with their versions and history.

Knows namespaces, and how objects change and are patched. Must not know requests, connections, or
anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kmproxy.simulator.objects import KINDS, Object, key
from kmproxy.simulator.statuses import StatusError


class Store:
    """Objects by resource and key, with one growing version, and the history of last changes.

    A key is NAME or, for objects in namespaces, NAMESPACE/NAME. Objects are never changed in
    place. A watch can resume at any version from `floor` on. A reader that takes `changed` before
    it reads, and then waits for it, misses no change.
    """

    def __init__(self, history: int = 1000) -> None:
        self.version = 1000
        self.floor = 0
        self.objects: dict[str, dict[str, Object]] = {name: {} for name in KINDS}
        self._history: deque[tuple[int, str, str, Object]] = deque(maxlen=history)
        self.changed = asyncio.Event()
        self._backup = (self.version, self.objects)

    def __repr__(self) -> str:
        return f"<Store at {self.version}, history from {self.floor}>"

    def put(self, resource: str, item: Object) -> Object:
        """Create or replace an object. An equal object is not a change."""
        known = self.objects[resource]
        name = key(item)
        old = known.get(name)
        if old == item:
            return old
        kept = (old or item)["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.version += 1
        fixed = {
            "uid": kept.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": kept.get("creationTimestamp") or now,
            "resourceVersion": str(self.version),
        }
        item = item | {"metadata": item["metadata"] | fixed}
        known[name] = item
        self._log(resource, "MODIFIED" if old else "ADDED", item)
        return item

    def remove(self, resource: str, name: str) -> Object:
        """Delete an object. Raises KeyError if it does not exist."""
        old = self.objects[resource].pop(name)
        self.version += 1
        last = old | {"metadata": old["metadata"] | {"resourceVersion": str(self.version)}}
        self._log(resource, "DELETED", last)
        return last

    def since(self, resource: str, version: int) -> Iterator[tuple[int, str, Object]]:
        """Yield the changes of a resource after `version`."""
        for at, of, kind, item in tuple(self._history):
            if of == resource and at > version:
                yield at, kind, item

    def is_now(self, text: str) -> None:
        """Raise StatusError, with the text of etcd, unless `text` is the newest version."""
        if not text.isdecimal():
            raise StatusError(400, f'resourceVersion: Invalid value: "{text}"')
        if int(text) > self.version:
            message = "etcdserver: mvcc: required revision is a future revision"
            raise StatusError(500, message, reason="InternalError")
        if int(text) < self.version:
            raise StatusError(410, "The resourceVersion for the provided list is too old.")

    def reached(self, text: str) -> int:
        """Return the version in `text` (empty: 0). Raises StatusError for a future version."""
        if not text.isdecimal() and text:
            raise StatusError(400, f'resourceVersion: Invalid value: "{text}"')
        version = int(text or 0)
        if version > self.version:
            message = "Too large resource version"
            raise StatusError(
                504,
                f"Timeout: {message}: {version}, current: {self.version}",
                details={"causes": [{"reason": "ResourceVersionTooLarge", "message": message}]},
                retry_after=1,
            )
        return version

    def wake(self) -> None:
        """Set `changed`, and replace it with a new event."""
        self.changed.set()
        self.changed = asyncio.Event()

    def expire(self) -> None:
        """Make every version so far too old."""
        self._history.clear()
        self.version += 1
        self.floor = self.version

    def back_up(self) -> None:
        """Remember the current state for `restore`."""
        self._backup = self.version, {name: dict(items) for name, items in self.objects.items()}

    def restore(self) -> None:
        """Restore the state of the backup: objects, version and history."""
        self.version, objects = self._backup
        self.objects = {name: dict(items) for name, items in objects.items()}
        kept = [entry for entry in self._history if entry[0] <= self.version]
        self._history = deque(kept, maxlen=self._history.maxlen)
        self.floor = min(self.floor, self.version)  # otherwise no watch could resume from a list

    def _log(self, resource: str, kind: str, item: Object) -> None:
        if len(self._history) == self._history.maxlen:
            self.floor = self._history[0][0]
        self._history.append((self.version, resource, kind, item))
        self.wake()


class Namespaces:
    """The namespaces of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Namespaces {', '.join(self)}>"

    def __len__(self) -> int:
        return len(self._store.objects["namespaces"])

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._store.objects["namespaces"]))

    def get(self, name: str) -> Object | None:
        """Return a namespace as the API has it, or None. It must not be changed."""
        return self._store.objects["namespaces"].get(name)

    def apply(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """Create a namespace, or replace its labels or annotations (None: do not change them)."""
        metadata = dict((self.get(name) or {}).get("metadata", {"name": name}))
        if labels is not None:
            metadata["labels"] = dict(labels)
        if annotations is not None:
            metadata["annotations"] = dict(annotations)
        return self.put({"metadata": metadata})

    def put(self, item: Object) -> Object:
        """Create or replace a namespace, completed as the API server completes it."""
        metadata = dict(item["metadata"])
        name = metadata["name"]
        metadata["labels"] = {"kubernetes.io/metadata.name": name} | (metadata.get("labels") or {})
        if not metadata.get("annotations"):
            metadata.pop("annotations", None)
        item = {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}
        item |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        return self._store.put("namespaces", item)

    def delete(self, name: str) -> Object:
        """Delete a namespace. Raises KeyError if it does not exist."""
        return self._store.remove("namespaces", name)

    def pad(self, name: str, size: int) -> Object:
        """Give a namespace an annotation of `size` bytes."""
        annotations = (self.get(name) or {}).get("metadata", {}).get("annotations", {})
        return self.apply(name, annotations=annotations | {"example.com/padding": "x" * size})


def patched(item: Object, patch: Any, kind: str) -> Object:
    """Return a copy of `item` with a merge, strategic merge or JSON patch applied.

    Raises StatusError 415 for another kind of patch, 422 for a failed test in a JSON patch.
    """
    if kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        merged: Object = _merged(item, patch)
        return merged
    if kind != "application/json-patch+json":
        raise StatusError(415, f"the body of the request was in an unknown format: {kind}")
    item = copy.deepcopy(item)
    for step in patch:
        *path, last = (
            part.replace("~1", "/").replace("~0", "~") for part in step["path"][1:].split("/")
        )
        target = item
        for part in path:
            target = target.setdefault(part, {})
        if step["op"] == "remove":
            target.pop(last, None)
        elif step["op"] in ("add", "replace"):
            target[last] = step["value"]
        elif step["op"] == "test" and target.get(last) != step["value"]:
            raise StatusError(422, f"testing path {step['path']} failed", reason="Invalid")
    return item


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    old = old if isinstance(old, dict) else {}
    new = {key: _merged(old.get(key), value) for key, value in patch.items() if value is not None}
    return {key: value for key, value in old.items() if key not in patch} | new
