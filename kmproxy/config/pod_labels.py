"""The labels that samples get from their pods: the settings, and the rules they are read into.

Knows names, types and defaults, and which names of labels are taken. Must not know how rules are
used, or where pods come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kmproxy.config.label_rules import WILDCARD, LabelRule, label_name, name_problem
from kmproxy.config.settings import setting
from kmproxy.config.types import one_of, parse_bool, parse_word

WORKLOAD = "workload"
WORKLOAD_TYPE = "workload_type"
"""The names of the labels of `--workload`."""

POD = "pod"
"""The label that the labels of pods are looked up by, with the namespace's."""


@dataclass(frozen=True, slots=True)
class PodRule:
    """A pod's label `key` becomes metric label `name`."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class PodConfig:
    """The labels that samples get from their pods, and the treatment of samples of unknown pods."""

    label: tuple[str, ...] = setting(
        "pod-label", parse_word, (), "KEY[=NAME]",
        "a pod's label KEY becomes metric label NAME on samples with its namespace and pod",
        repeatable=True,
    )  # fmt: skip
    workload: bool = setting(
        "workload", parse_bool, False, "",
        "add workload and workload_type, from the pod's controller, to samples with its namespace "
        "and pod",
    )  # fmt: skip
    unknown_pod: str = setting(
        "unknown-pod", one_of("drop", "keep"), "drop", "drop|keep",
        "a sample of a pod that the kubelet does not list: leave it out, or pass it without pod "
        "labels",
    )  # fmt: skip
    rules: tuple[PodRule, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether samples get any label from their pods."""
        return self.workload or bool(self.rules)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels that pods give, in the order in which they are added."""
        own = (WORKLOAD, WORKLOAD_TYPE) if self.workload else ()
        return (*(rule.name for rule in self.rules), *own)

    @property
    def reserved(self) -> frozenset[str]:
        """The names that `*` must not make of the labels of a namespace."""
        return frozenset((*self.names, POD)) if self.enabled else frozenset()


def read_pod_rules(pods: PodConfig, rules: Sequence[LabelRule]) -> tuple[PodConfig, list[str]]:
    """Reads the rules of a section, beside the `rules` for namespaces.

    Returns the section with its rules, and a line for each problem. The section may be used only
    if there is no problem.
    """
    problems: list[str] = []
    taken = {rule.name: _spelled(rule) for rule in rules if rule.name}
    own = {WORKLOAD: "--workload", WORKLOAD_TYPE: "--workload"} if pods.workload else {}
    problems += [
        f"{taken[name]}: the label {name!r} is already made by {flag}"
        for name, flag in own.items()
        if name in taken
    ]
    taken |= own
    found: list[PodRule] = []
    for text in pods.label:
        spelling = f"--pod-label {text}"
        key, equals, name = text.partition("=")
        if not key or (equals and not name):
            problems.append(f"--pod-label: {text!r} is not KEY or KEY=NAME")
        elif key == WILDCARD:
            problems.append(f"{spelling}: '*' is for namespaces only: name each label of pods")
        elif problem := _name_problem(name := name or label_name(key)):
            problems.append(f"{spelling}: {problem}")
        elif (other := taken.setdefault(name, spelling)) is not spelling:
            problems.append(f"{spelling}: the label {name!r} is already made by {other}")
        else:
            found.append(PodRule(key, name))
    if (found or pods.workload) and POD in taken:
        problems.append(f"{taken[POD]}: {_name_problem(POD)}")
    return dataclasses.replace(pods, rules=tuple(found)), problems


def unused_pod_settings(pods: PodConfig, dropped: Collection[str]) -> list[str]:
    """Returns a warning for each setting that has no effect. `dropped` are labels taken off."""
    if not pods.enabled:
        changed = pods.unknown_pod != PodConfig().unknown_pod
        return ["--unknown-pod has no effect without --pod-label or --workload"] if changed else []
    if POD in dropped:
        return ["--pod-label and --workload have no effect beside --drop-label pod"]
    return []


def _name_problem(name: str) -> str | None:
    if name == POD:
        return "kmproxy looks labels of pods up by 'pod' and cannot replace that label"
    return name_problem(name)


def _spelled(rule: LabelRule) -> str:
    """Returns a rule for namespaces as its user wrote it, or nearly so."""
    if not rule.key:
        return f"--label-default {rule.name}={rule.default}"
    named = "" if label_name(rule.key) == rule.name else f"={rule.name}"
    return f"--{rule.source} {rule.key}{named}"
