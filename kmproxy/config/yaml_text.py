"""Reads YAML as it is specified: a key stands once in a mapping.

Knows where the library accepts text that YAML forbids. Must not know files, or the
purpose of a document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any


class RepeatedKeyError(ValueError):
    """A key stands twice in a mapping. `line`, counted from 1, is the line of the second."""

    def __init__(self, key: str, line: int) -> None:
        self.key = key
        self.line = line
        super().__init__(f"line {line} repeats a key")


def parse_yaml(text: str, *, plain: Callable[[str, Any], Any] | None = None) -> Any:
    """Returns the one document in a text.

    `plain` makes the value of a scalar that YAML reads as a number, a boolean or a date. It is
    given the scalar's text, and the value that YAML reads. Without `plain`, the latter counts.

    Raises RepeatedKeyError and yaml.YAMLError, and for text that cannot be a value
    ValueError, TypeError or RecursionError. Keys are compared as they are
    written, without quotes. Keys that `<<` merges in are no keys of the mapping.
    """
    import yaml  # noqa: PLC0415 - only a configuration with a YAML file needs it

    class Loader(yaml.SafeLoader):
        """Checks mappings as they are written, before any is merged into another."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise RepeatedKeyError(key.value, key.start_mark.line + 1)
                    seen.add(key.value)
            return node

    def construct(loader: Any, node: Any) -> Any:
        value = node.value
        with suppress(ValueError):  # a date that does not exist
            value = getattr(loader, f"construct_yaml_{node.tag.rpartition(':')[2]}")(node)
        return plain(node.value, value) if plain else value

    if plain is not None:
        for kind in ("bool", "int", "float", "timestamp"):
            Loader.add_constructor(f"tag:yaml.org,2002:{kind}", construct)
    return yaml.load(text, Loader)  # noqa: S506 - it is a SafeLoader


def key_lines(text: str) -> dict[str, int]:
    """Returns the line of each key in a text that `parse_yaml` has read, counted from 1.

    Keys are named as problems name them: `kubelet.tls_config`, and in a list `upstreams[2].url`
    or, by the item's value of `name`, `upstreams[istio].url`. Left out is what two items could be.
    """
    import yaml  # noqa: PLC0415 - only a configuration with a YAML file needs it

    seen: set[int] = set()

    def lines(path: str, node: Any) -> Iterator[tuple[str, int]]:
        if id(node) in seen:  # an alias, perhaps of a node that it is a part of
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    below = f"{path}.{key.value}" if path else key.value
                    yield below, key.start_mark.line + 1
                    yield from lines(below, value)
        elif isinstance(node, yaml.SequenceNode):
            names = [_name(item) for item in node.value]
            for number, (item, name) in enumerate(zip(node.value, names, strict=True), 1):
                found = {"": item.start_mark.line + 1}
                found |= {f".{rest}": line for rest, line in lines("", item)}
                shown = [str(number)] if str(number) not in names else []
                if name is not None and names.count(name) == 1 and not name.isdecimal():
                    shown.append(name)
                for each in shown:
                    yield from ((f"{path}[{each}]{rest}", line) for rest, line in found.items())

    return dict(lines("", yaml.compose(text, yaml.SafeLoader)))


def _name(item: Any) -> str | None:
    """Returns the value of the key `name` of a composed mapping, or None without one."""
    pairs = item.value if item.id == "mapping" else []
    names = [value.value for key, value in pairs if key.value == "name" and value.id == "scalar"]
    return names[0] if names else None
