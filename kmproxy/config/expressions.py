"""Regular expressions as Prometheus users write them: in RE2's syntax, for whole names.

Knows RE2's Python bindings, and which expressions Prometheus refuses although RE2 accepts
them. Must not know what the names belong to. The bindings are imported with the first
expression, because they cost 3 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_PATTERN = 10_000
"""Characters of the longest expression. A longer one would need more than `EXPRESSION_BYTES`."""

EXPRESSION_BYTES = 1 << 20
"""Bytes that RE2 may use for one expression, including its cache of states. RE2 refuses an
expression that needs more. If only the states are too many, RE2 still answers, but more slowly."""

MAX_EXPRESSIONS = 32
"""Expressions in one configuration, at most. All together may take 32 MiB."""

_ESCAPED = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `match` tells in linear time whether a whole name matches."""

    pattern: str
    match: Callable[[str], bool] = field(repr=False, compare=False)


def parse_regex(text: str) -> Expression:
    """Compiles a regular expression that must match a whole name.

    Syntax and anchoring are the same as in Prometheus. Raises ValueError, with
    RE2's reason, for an expression that Prometheus refuses or that is too large.
    """
    shown = repr(text[:100]) + "..." * (len(text) > 100)
    if len(text) > MAX_PATTERN:
        raise ValueError(f"{shown} has over {MAX_PATTERN} characters: split the expression")
    if r"\C" in _ESCAPED.findall(text):  # C++'s RE2 has this escape, Go's has not
        why = r"invalid escape sequence: \C"
    else:
        match, why = _compile(f"^(?s:{text})$")
        if match is not None:
            return Expression(text, match)
        why = _compile(text)[1] or why  # the reason for the text as written, if it fails
    raise ValueError(f"{shown} is not a regular expression that RE2 accepts: {why}")


def _compile(text: str) -> tuple[Callable[[str], bool] | None, str]:
    """Returns a function that tells whether a string matches, or None and the reason."""
    import re2  # noqa: PLC0415 - only configurations with an expression need it

    options = re2.Options()
    options.max_mem = EXPRESSION_BYTES
    options.log_errors = False  # RE2 would write them to standard error
    options.never_capture = True
    try:
        compiled = re2.compile(text, options)
    except UnicodeError:
        return None, "its text is not valid Unicode"
    except re2.error as error:
        return None, error.args[0].decode(errors="replace")

    def match(name: str) -> bool:
        return compiled.search(name.encode(errors="replace")) is not None

    return match, ""
