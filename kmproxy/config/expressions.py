"""Regular expressions as Prometheus users write them: RE2's, for whole names.

Knows RE2's bindings, and what Prometheus refuses of what they take. Must not know
what the names are of. The bindings are imported with the first expression: they
cost 3 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_PATTERN = 10_000
"""Characters of the longest expression: a longer one would need more than `EXPRESSION_BYTES`."""

EXPRESSION_BYTES = 1 << 20
"""Bytes that RE2 takes for one expression, its cache of states included. It refuses an expression
that needs more; one whose states are too many is still answered, by slower means."""

MAX_EXPRESSIONS = 32
"""Expressions of one configuration at most: all of them may take 32 MiB."""

_ESCAPED = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `match` says whether a whole name matches, in linear time."""

    pattern: str
    match: Callable[[str], bool] = field(repr=False, compare=False)


def parse_regex(text: str) -> Expression:
    """Compile a regular expression that is to match a whole name.

    It is taken, and anchored, as Prometheus does. Raises ValueError with RE2's
    reason for one that Prometheus refuses, or that is too large.
    """
    shown = repr(text[:100]) + "..." * (len(text) > 100)
    if len(text) > MAX_PATTERN:
        raise ValueError(f"{shown} has over {MAX_PATTERN} characters: write it as several")
    if r"\C" in _ESCAPED.findall(text):  # RE2 has it in C++, and not in Go
        why = r"invalid escape sequence: \C"
    else:
        match, why = _compile(f"^(?s:{text})$")
        if match is not None:
            return Expression(text, match)
        why = _compile(text)[1] or why  # that of what was written, where it has one
    raise ValueError(f"{shown} is not a regular expression of RE2: {why}")


def _compile(text: str) -> tuple[Callable[[str], bool] | None, str]:
    """What tells whether a string has a match; or None, and why there is none."""
    import re2  # noqa: PLC0415 - for those who give an expression

    options = re2.Options()
    options.max_mem = EXPRESSION_BYTES
    options.log_errors = False  # they would go to standard error
    options.never_capture = True
    try:
        compiled = re2.compile(text, options)
    except UnicodeError:
        return None, "it is not valid Unicode"
    except re2.error as error:
        return None, error.args[0].decode(errors="replace")

    def match(name: str) -> bool:
        return compiled.search(name.encode(errors="replace")) is not None

    return match, ""
