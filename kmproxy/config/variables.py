"""Settings from environment variables: `KMPROXY_NODE_PORT` is `--node-port`.

Knows how a variable is named and split, and which variables of the same prefix Kubernetes sets for
Services. Must not know which settings exist, or read the environment of the process: it is given
both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from kmproxy.config.settings import Setting

PREFIX: Final = "KMPROXY_"

_OF_A_SERVICE = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)",
    re.ASCII,
)
_LINK = re.compile(r"(?:tcp|udp|sctp)://")


def variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return PREFIX + name.upper().replace("-", "_")


def read_variables(
    environment: Mapping[str, str], known: Mapping[str, Setting]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Returns the values that an environment gives to settings, and warnings.

    Each unknown variable with the prefix gets a warning. A repeatable setting has one value per
    line, so a value may hold a comma. Blanks around a value are ignored. An empty variable counts
    as absent.
    """
    names = {variable(name): name for name in known}
    aliases = {variable(alias): spec for spec in known.values() for alias in spec.aliases}
    values: dict[str, tuple[str, ...]] = {}
    warnings = []
    for key in sorted(each for each in environment if each.startswith(PREFIX)):
        value = environment[key]
        rest = key.removeprefix(PREFIX)
        # In a pod of a namespace with a Service `kmproxy-node`, KMPROXY_NODE_PORT is its address.
        linked = rest.endswith("PORT") and _LINK.match(value)
        if key in names and not linked:
            lines = value.split("\n") if known[names[key]].repeatable else [value]
            if given := tuple(line.strip() for line in lines if line.strip()):
                values[names[key]] = given
        elif not linked and (key in aliases or not _OF_A_SERVICE.fullmatch(rest)):
            nearest = difflib.get_close_matches(
                rest, [variable(n)[len(PREFIX) :] for n in known], 1
            )
            meant = variable(aliases[key].name) if key in aliases else PREFIX + "".join(nearest)
            hint = f", did you mean {meant}?" if meant != PREFIX else ""
            warnings.append(f"the environment variable {key} names no setting and is ignored{hint}")
    return values, warnings
