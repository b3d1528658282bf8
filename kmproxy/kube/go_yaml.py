"""Reads YAML as the Go programs of Kubernetes do: one document, with the values of JSON.

Knows the scalars of go-yaml v2: it has no dates and no numbers to the base 60, and `yes`, `on` and
`y` are true. Must not know what a document means. Time and memory are linear in the text, because
the nesting and the values that aliases repeat are bounded. No error shows the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

MAX_DEPTH: Final = 100
MAX_VALUES: Final = 1_000_000
"""The most values of a document. Values that an alias repeats count each time."""

_WORDS: Final[dict[str, bool | None]] = {
    word: value
    for value, words in (
        (None, ("", "~", "null", "Null", "NULL")),
        (True, ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")),
        (False, ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")),
    )
    for word in words
}
_INTEGER = re.compile(r"[-+]?(?:0[bB][01]+|0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|[1-9][0-9]*|0)", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
_TEXT_TAGS = {"!", "tag:yaml.org,2002:str"}


def load(data: bytes) -> Any:
    """Return the first document, or None if the text has none.

    Raises ValueError. For a syntax error it names the line, where that is known.
    """
    import yaml  # noqa: PLC0415 - only users of such a file pay for the import

    # The C parser accepts tabs where Go does. Its composer overflows the stack, ours is not deep.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _document(yaml.parse(data, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"the file is not YAML{where}") from None


def resolved(text: str) -> Any:
    """Return the value of a scalar without quotes: None, a bool, an int, a float or the text."""
    if text in _WORDS:
        return _WORDS[text]
    plain = text.replace("_", "") if text[:1].isdecimal() or text[0] in "+-" else text
    if len(plain) > 40:  # no number in Go has as many digits
        return text
    if _INTEGER.fullmatch(plain):
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", plain)
        return int(octal[1] + octal[2], 8) if octal else int(plain, 0)
    if _FLOAT.fullmatch(plain):
        return float(re.sub(r"\.(inf|nan)", r"\1", plain.lower()))
    return text


class _Node:
    """A mapping or a list that is being read, and the number of its values so far."""

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.count = 1
        self._key: str | None = None
        self._merging = False
        self._merged: list[Any] = []

    @property
    def wants_key(self) -> bool:
        """Whether the next value is a key."""
        return isinstance(self.value, dict) and self._key is None

    def add(self, value: Any, count: int, *, plain: bool) -> None:
        """Add the next item of a list, or the next key or value of a mapping. Raises ValueError."""
        self.count += count
        if isinstance(self.value, list):
            self.value.append(value)
        elif self._key is None:
            if not isinstance(value, str):
                raise ValueError("a key is a mapping or a list")  # noqa: TRY004 - of the text
            self._key, self._merging = value, plain and value == "<<"
        else:
            if self._merging:
                self._merged += value if isinstance(value, list) else [value]
            else:
                self.value[self._key] = value
            self._key = None

    def end(self) -> Any:
        """Return the whole value. `<<` merges in only keys that it lacks. Raises ValueError."""
        for other in self._merged:
            if not isinstance(other, dict) or not isinstance(self.value, dict):
                raise ValueError("<< merges a value that is not a mapping")  # noqa: TRY004 - of the text
            for key, value in other.items():
                self.value.setdefault(key, value)
        return self.value


class _Reading:
    """A document that is being read."""

    def __init__(self) -> None:
        self._stack = [_Node([], None)]
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._total = 0

    def begin(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        if len(self._stack) > MAX_DEPTH:
            raise ValueError(f"the file has over {MAX_DEPTH} levels of nesting")
        self._stack.append(_Node(value, anchor))

    def end(self) -> None:
        node = self._stack.pop()
        value = node.end()
        if node.anchor is not None:
            self._anchors[node.anchor] = value, node.count
        self._stack[-1].add(value, node.count, plain=False)

    def scalar(self, text: str, anchor: str | None, *, plain: bool) -> None:
        node = self._stack[-1]
        value = resolved(text) if plain and not node.wants_key else text
        if anchor is not None:
            self._anchors[anchor] = value, 1
        self._count(1)
        node.add(value, 1, plain=plain)

    def alias(self, anchor: str) -> None:
        if anchor not in self._anchors:
            raise ValueError("an alias has no anchor before it")
        value, count = self._anchors[anchor]
        self._count(count)
        self._stack[-1].add(value, count, plain=False)

    def document(self) -> Any:
        whole = self._stack[0].value
        return whole[0] if isinstance(whole, list) and whole else None

    def _count(self, values: int) -> None:
        self._total += values
        if self._total > MAX_VALUES:
            raise ValueError(f"the file holds over {MAX_VALUES:,} values")


def _document(events: Iterator[Any]) -> Any:
    reading = _Reading()
    for event in events:
        match type(event).__name__:
            case "MappingStartEvent":
                reading.begin({}, event.anchor)
            case "SequenceStartEvent":
                reading.begin([], event.anchor)
            case "MappingEndEvent" | "SequenceEndEvent":
                reading.end()
            case "ScalarEvent":
                plain = event.implicit[0] and event.tag not in _TEXT_TAGS
                reading.scalar(event.value, event.anchor, plain=plain)
            case "AliasEvent":
                reading.alias(event.anchor)
            case "DocumentEndEvent":
                break
    return reading.document()
