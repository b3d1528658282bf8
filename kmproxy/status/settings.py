"""Lists the effective settings for a person, without secrets.

Knows how a value is written. Must not know which settings exist: the sections of the configuration
describe themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from kmproxy.config.expressions import Expression
from kmproxy.config.settings import Setting as Described
from kmproxy.config.settings import settings
from kmproxy.config.types import Secret
from kmproxy.status.model import Setting

HIDDEN = "<secret>"
"""Shown in the place of a secret."""


def effective(sections: Iterable[Any]) -> list[Setting]:
    """The settings of sections, in order. A setting that two sections share is listed once."""
    found: dict[str, Setting] = {}
    for section in sections:
        defaults = {each.name: each.default for each in dataclasses.fields(section)}
        for attribute, described in settings(type(section)).items():
            value = getattr(section, attribute)
            found.setdefault(
                described.name,
                Setting(
                    name=described.name,
                    value=_shown(value, described),
                    default=value == defaults[attribute],
                ),
            )
    return list(found.values())


def section_given(name: str, *, given: bool) -> Setting:
    """A section of the YAML file of which only its presence is shown: it may hold credentials."""
    return Setting(name=f"{name}:", value="given" if given else "", default=not given)


def without_credentials(url: str) -> str:
    """A URL without user, password, query and fragment, which may be credentials."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _shown(value: Any, described: Described) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Secret():
            return HIDDEN
        case float():
            return _duration(value)
        case tuple() if described.repeatable:
            return "\n".join(_one(each) for each in value)
        case _:
            return _one(value)


def _one(value: Any) -> str:
    if isinstance(value, Secret):
        return HIDDEN
    if type(value) is tuple:  # a name and a value; an Address or a Resource writes itself
        return "=".join(_one(each) for each in value)
    text = value.pattern if isinstance(value, Expression) else str(value)
    return without_credentials(text) if "://" in text else text


def _duration(seconds: float) -> str:
    """A duration as `parse_duration` reads it."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole, parts = int(seconds), []
    for size, unit in ((3600, "h"), (60, "m")):
        if whole >= size:
            parts.append(f"{whole // size}{unit}")
            whole %= size
    rest = whole + seconds % 1
    return "".join(parts) + (f"{rest:g}s" if rest or not parts else "")
