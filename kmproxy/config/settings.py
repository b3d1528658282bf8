"""Describes settings: one field defines a flag, a YAML key, a help text and a default.

Knows the description of a setting, and how a frozen section carries it. Must not know which
settings exist, or where values come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kmproxy.config.types import OneOf, parse_bool

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Setting:
    """Describes how one setting is spelled, read and explained.

    `parse` takes one value as text and raises ValueError with a reason. A
    repeatable setting is a tuple of such values. `aliases` are other flags for
    the same setting, each with the format string into which the given value is put.
    """

    name: str
    parse: Callable[[str], Any]
    metavar: str
    help: str
    repeatable: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def boolean(self) -> bool:
        """Whether the flag may stand without a value."""
        return self.parse is parse_bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The only words that the setting accepts. Empty if there is no such list."""
        return self.parse.words if isinstance(self.parse, OneOf) else ()


def setting(
    name: str,
    parse: Callable[[str], _T],
    default: Any,
    metavar: str,
    help_: str,
    *,
    repeatable: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> Any:
    """Makes a field of a section that is a setting."""
    meta = Setting(name, parse, metavar, help_, repeatable, aliases or {})
    return field(default=default, metadata={"setting": meta})


def same_setting(section: type[Any], attribute: str) -> Any:
    """Makes a field that is the setting of another section, with its default."""
    (spec,) = (each for each in dataclasses.fields(section) if each.name == attribute)
    return field(default=spec.default, metadata=spec.metadata)


def settings(section: type[Any]) -> dict[str, Setting]:
    """Returns the settings of a section by attribute, in order."""
    fields = dataclasses.fields(section)
    return {spec.name: spec.metadata["setting"] for spec in fields if "setting" in spec.metadata}
