"""A reader of the part of kustomize that our manifests use, for machines without kubectl.

Knows resources, components, JSON patches and generated ConfigMaps, and refuses all else;
`tests/manifests/test_manifests.py` holds it against `kubectl kustomize` wherever there is one.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

from tests.support.yaml_text import read, read_all

_KEYS = frozenset(
    {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator"}
)  # fmt: skip


def build(folder: Path, *components: Path) -> list[dict]:
    """The objects of a kustomization with these components put on it, in order.

    Raises ValueError for a key that it does not know, or a patch that does not apply.
    """
    objects = _build(folder, [])
    for component in components:
        objects = _build(component, objects)
    return objects


def _build(folder: Path, objects: list[dict]) -> list[dict]:
    document = read((folder / "kustomization.yaml").read_text("utf-8"))
    if unknown := set(document) - _KEYS:
        raise ValueError(f"{folder}: {unknown} is not understood")
    objects = list(objects)
    for name in document.get("resources", ()):
        path = folder / name
        objects += _build(path, []) if path.is_dir() else _read(path)
    objects += [_config_map(folder, each) for each in document.get("configMapGenerator", ())]
    for name in document.get("components", ()):
        objects = _build(folder / name, objects)
    for each in document.get("patches", ()):
        operations = read(each["patch"])
        objects = [
            _patched(one, operations) if _selected(one, each["target"]) else one for one in objects
        ]
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    if len(set(names)) < len(names):
        raise ValueError(f"{folder}: an object is there twice")
    return objects


def _read(path: Path) -> list[dict]:
    return read_all(path.read_text("utf-8"))


def _config_map(folder: Path, spec: dict) -> dict:
    if set(spec) != {"name", "namespace", "files", "options"}:
        raise ValueError(f"{folder}: the generator {spec['name']} is not understood")
    options = spec["options"]
    if options.pop("disableNameSuffixHash") is not True or set(options) - {"labels", "annotations"}:
        raise ValueError(f"{folder}: the options of {spec['name']} are not understood")
    metadata = {"name": spec["name"], "namespace": spec["namespace"], **options}
    data = {Path(name).name: (folder / name).read_text("utf-8") for name in spec["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _selected(one: dict, target: dict[str, str]) -> bool:
    found = {"kind": one["kind"], "name": one["metadata"]["name"]}
    return all(re.fullmatch(regex, found[key]) for key, regex in target.items())


def _patched(one: dict, operations: list[dict]) -> dict:
    """RFC 6902, of which `test`, `add`, `replace` and `remove` are known."""
    document = copy.deepcopy(one)
    for each in operations:
        *way, last = (
            part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]
        )
        parent = document
        for part in way:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        key = last if isinstance(parent, dict) else len(parent) if last == "-" else int(last)
        there = key in parent if isinstance(parent, dict) else key < len(parent)
        op, value = each["op"], each.get("value")
        if op == "add" and isinstance(parent, list):
            parent.insert(key, value)
        elif op == "add":
            parent[key] = value
        elif not there:
            raise ValueError(f"{each['path']} is not there")
        elif op == "replace":
            parent[key] = value
        elif op == "remove":
            del parent[key]
        elif op != "test" or parent[key] != value:
            raise ValueError(f"{op} {each['path']}: it is {parent[key]!r}")
    if document["metadata"].get("annotations") == {}:
        del document["metadata"]["annotations"]  # as kustomize does with an object's own
    return document
