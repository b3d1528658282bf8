"""Reads YAML as it is specified: a key stands once in a mapping.

Knows where the library accepts text that YAML forbids. Must not know files, or the
purpose of a document.
"""

from __future__ import annotations

from collections.abc import Callable
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
