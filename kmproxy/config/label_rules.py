"""Label rules: they make labels of samples from the metadata of namespaces.

Knows how rules are written, and which names a label may have. Must not know how
rules are used, or where namespaces come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal["label", "annotation"]

WILDCARD = "*"
NAME_LABEL = "kubernetes.io/metadata.name"
"""A label of every namespace, equal to its name. The key `*` leaves it out."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""An annotation of kubectl, a copy of the whole object. The key `*` leaves it out."""

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)

MAX_VALUE = 1024
"""Default limit for the length of an added label value, in bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Namespace metadata `key` becomes metric label `name`.

    With the key `*`, `name` is empty and every key of the source makes its own label.
    `default` is the value for a namespace without this key. An empty default means no
    label.
    """

    source: Source
    key: str
    name: str
    default: str = ""


def label_name(key: str) -> str:
    """Returns the metric label name for a metadata key whose rule gives no name."""
    name = _OUTSIDE_NAME.sub("_", key)
    return "_" + name if name[:1].isdigit() else name


def name_problem(name: str) -> str | None:
    """Returns why `name` cannot be the name of an added label, or None if it can."""
    if not _LABEL_NAME.fullmatch(name):
        return f"{name!r} is not a label name: [a-zA-Z_][a-zA-Z0-9_]*"
    if name.startswith("__"):
        return f"{name!r} begins with two underscores, which Prometheus keeps for itself"
    if name == "namespace":
        return "kmproxy looks labels up by 'namespace' and cannot replace that label"
    return None


def parse_label_name(text: str) -> str:
    """Reads the name of a label to be removed. Raises ValueError if it must not be removed."""
    if problem := name_problem(text):
        raise ValueError(problem)
    return text


def parse_rules(
    labels: Sequence[str], annotations: Sequence[str], defaults: Sequence[str]
) -> tuple[tuple[LabelRule, ...], list[str]]:
    """Reads `KEY[=NAME]` and `NAME=VALUE` specifications.

    Returns the rules in the given order, labels before annotations, and a line for
    each problem. The rules may be used only if there is no problem.
    """
    problems: list[str] = []
    values = _parse_defaults(defaults, problems)
    rules: list[LabelRule] = []
    taken: dict[str, str] = {}
    specifications: list[tuple[Source, str]] = [("label", text) for text in labels]
    specifications += [("annotation", text) for text in annotations]
    for source, text in specifications:
        key, equals, name = text.partition("=")
        if not key or (equals and not name):
            problems.append(f"--{source}: {text!r} is not KEY or KEY=NAME")
            continue
        if key == WILDCARD:
            if name:
                problems.append(f"--{source}: '*' stands for many labels and takes no name")
                continue
        else:
            name = name or label_name(key)
            if problem := name_problem(name):
                problems.append(f"--{source} {text}: {problem}")
                continue
        spelling = f"--{source} {text}"
        if (other := taken.setdefault(name or f"{source} {key}", spelling)) is not spelling:
            what = f"the label {name!r}" if name else "'*'"
            problems.append(f"{spelling}: {other} already makes {what}")
            continue
        rules.append(LabelRule(source, key, name, values.pop(name, "") if name else ""))
    rules += _default_rules(rules, values, problems)
    return tuple(rules), problems


def _parse_defaults(defaults: Sequence[str], problems: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in defaults:
        name, equals, value = text.partition("=")
        if not equals:
            problems.append(f"--label-default: {text!r} is not NAME=VALUE")
        elif problem := name_problem(name):
            problems.append(f"--label-default {text}: {problem}")
        elif name in values:
            problems.append(f"--label-default {text}: {name!r} has a default already")
        else:
            values[name] = value
    return values


def _default_rules(
    rules: Sequence[LabelRule], values: Mapping[str, str], problems: list[str]
) -> list[LabelRule]:
    """Returns rules for the defaults of names that no rule spells out.

    Such a default is valid only if a rule with `*` may make its label.
    """
    if any(rule.key == WILDCARD for rule in rules):
        return [LabelRule("label", "", name, value) for name, value in values.items()]
    known = ", ".join(rule.name for rule in rules) or "none"
    problems += [
        f"--label-default {name}={value}: no rule makes the label {name!r} (made: {known})"
        for name, value in values.items()
    ]
    return []
