"""The metrics that an expression of a rule or dashboard needs."""

from __future__ import annotations

import re

KEYWORDS = {"and", "or", "unless", "bool", "offset"}


def metrics(expression):
    """The metric names in an expression."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\w|\s*\()", bare)
    return set(names) - KEYWORDS
