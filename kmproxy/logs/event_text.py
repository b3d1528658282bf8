"""Reads a Kubernetes event (`events.k8s.io/v1`), and makes the text of its line.

Knows the fields of an event and the logfmt format. Must not know requests, positions or labels.

The text has the keys of Grafana Alloy's `loki.source.kubernetes_events`, in the same order. A value
with a character that is not printable, a space, a quote or an equals sign is quoted, so an event
cannot make two lines, nor move a terminal's cursor, nor write a key that it does not have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from kmproxy.logs.cri import seconds_of
from kmproxy.logs.positions import END_OF_TIME

MAX_FIELD: Final = 1024
"""Characters of a value other than the note. The API server bounds most of them to 128."""

MAX_COUNT: Final = 1 << 63

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)", re.ASCII
)
_VERSION = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SURROGATE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""A whole pair of surrogates, or an escaped character; else a half of a pair."""


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None


class _Series(msgspec.Struct, rename="camel"):
    count: int | None = None
    last_observed_time: str | None = None


class _Regarding(msgspec.Struct, rename="camel"):
    kind: str | None = None
    name: str | None = None
    api_version: str | None = None
    resource_version: str | None = None


class _Source(msgspec.Struct):
    component: str | None = None
    host: str | None = None


class _Event(msgspec.Struct, rename="camel"):
    metadata: _Meta
    event_time: str | None = None
    series: _Series | None = None
    regarding: _Regarding | None = None
    action: str | None = None
    reason: str | None = None
    type: str | None = None
    note: str | None = None
    reporting_controller: str | None = None
    reporting_instance: str | None = None
    deprecated_source: _Source | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_count: int | None = None

    @property
    def count(self) -> int:
        """How many times the event was observed. 0 if nobody counted."""
        given = self.series.count if self.series else self.deprecated_count
        return given if given and 0 < given < MAX_COUNT else 0

    def times(self) -> tuple[str | None, ...]:
        """The times that may be that of the last observation, the best one first."""
        last = self.series.last_observed_time if self.series else None
        created = self.metadata.creation_timestamp
        return last, self.deprecated_last_timestamp, self.event_time, created


_EVENT = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Event:
    """One state of an event.

    `version` is the number of its resource version, and grows from change to change. `key` is its
    place in a list: NAMESPACE/NAME. `time` is that of the last observation, in nanoseconds since
    1970, or None if it has none.
    """

    version: int
    key: str
    namespace: str
    time: int | None
    text: bytes
    is_cut: bool


def version_of(text: str | None) -> int | None:
    """Return a resource version as a number, or None if it is none.

    Versions of one resource can be compared, says Kubernetes 1.35. Before that it was so, too.
    """
    return int(text) if text and _VERSION.fullmatch(text) else None


def whole_text(data: bytes) -> bytes:
    """Return a JSON text in which each half of a pair of surrogates is replaced by U+FFFD."""
    return _SURROGATE.sub(lambda found: found[1] or b"\\ufffd", data)


def read_event(data: bytes, max_line: int) -> Event | None:
    """Return an event, with a text of at most `max_line` bytes. None if it cannot be read."""
    try:
        try:
            event = _EVENT.decode(data)
        except msgspec.DecodeError:  # perhaps for half of a pair of surrogates
            event = _EVENT.decode(whole_text(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    meta, version = event.metadata, version_of(event.metadata.resource_version)
    namespace = meta.namespace or ""
    if version is None or not _NAMESPACE.fullmatch(namespace):
        return None
    text, is_cut = _line(event, max_line)
    return Event(
        version=version,
        key=f"{namespace}/{meta.name[:MAX_FIELD]}",
        namespace=namespace,
        time=next((found for each in event.times() if (found := _time(each))), None),
        text=text,
        is_cut=is_cut,
    )


def _time(text: str | None) -> int | None:
    """Return a time in nanoseconds since 1970, or None for a text that is no such time."""
    found = _TIME.fullmatch(text[:64]) if text else None
    if found is None:
        return None
    seconds = seconds_of(found[1].encode(), found[3].encode())
    if seconds is None or not 0 < seconds < END_OF_TIME:
        return None
    return seconds * 1_000_000_000 + int((found[2] or "0").ljust(9, "0"))


def _line(event: _Event, max_line: int) -> tuple[bytes, bool]:
    """Return the text of the line, and whether a value was cut."""
    about = event.regarding or _Regarding()
    source = event.deprecated_source or _Source()
    values = (
        ("name", about.name),
        ("kind", about.kind),
        ("action", event.action),
        ("objectAPIversion", about.api_version),
        ("objectRV", about.resource_version),
        ("eventRV", event.metadata.resource_version),
        ("reportinginstance", event.reporting_instance),
        ("reportingcontroller", event.reporting_controller),
        ("sourcecomponent", source.component),
        ("sourcehost", source.host),
        ("reason", event.reason),
        ("type", event.type),
        ("count", str(event.count) if event.count else None),
    )
    is_cut = any(value is not None and len(value) > MAX_FIELD for _, value in values)
    parts = [f"{key}={_value(value[:MAX_FIELD])}" for key, value in values if value]
    head = " ".join([*parts, "msg="]).encode()
    note = (event.note or "")[:max_line]
    is_cut = is_cut or note != (event.note or "")
    while len(head) + len(quoted := _quoted(note).encode()) > max_line and note:
        share = len(note) * max(0, max_line - len(head)) // len(quoted)
        note = note[: min(len(note) - 1, share)]
        is_cut = True
    line = head + quoted
    if len(line) > max_line:
        return line[:max_line].decode(errors="ignore").encode(), True
    return line, is_cut


def _value(text: str) -> str:
    """Return a value of logfmt, quoted if it has to be."""
    plain = text.isprintable() and not any(each in text for each in ' "=\\')
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    """Return a text in quotes, with escapes that each parser of logfmt and JSON knows."""
    if text.isprintable():
        return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
    return '"{}"'.format("".join(_escaped(each) for each in text))


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
