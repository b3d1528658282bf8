"""Checks the namespaces: they can be listed, and the label rules find values on them.

Knows which namespaces lack a value for a rule. Must not know metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kmproxy.check.report import Coverage
from kmproxy.check.steps import Steps
from kmproxy.config.label_rules import NAME_LABEL, WILDCARD, LabelRule
from kmproxy.config.recipe import reserved_names
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.kube.watch import WatchState
from kmproxy.labels.label_map import LIMITS, LabelMap
from kmproxy.labels.namespaces import explained, list_namespaces


async def list_labels(steps: Steps) -> LabelMap:
    """List the namespaces into a label map, which stays empty if that fails."""
    config = steps.config
    labels = LabelMap(
        config.labels.rules,
        max_value=config.labels.max_label_value_bytes,
        reserved=reserved_names(config),
    )
    limit = steps.config.apiserver.cache_sync_timeout
    async with steps.step("namespaces", "namespaces", "Namespaces, listed once", limit):
        try:
            state = WatchState(uniform=lambda low, _: low)
            tally, listing = Tally(labels.rules), labels.listing()
            async for some in list_namespaces(steps.clients.api, state):
                tally.add(some)
                labels.collect(listing, some)
        except ApiError as error:
            raise UpstreamError(error.reason, explained(error, "list")) from error
        labels.swap(listing, now=0.0)
        steps.report.namespaces = tally.total
        steps.report.add("namespaces", "namespaces", "ok", f"{tally.total} listed")
        if left_out := sum(map(labels.left_out, LIMITS)):
            message = f"{left_out} are too long, alone or with others of a namespace, and not added"
            steps.report.add("rule", "values of labels", "warning", message)
        for found in tally.coverage():
            steps.report.coverage.append(found)
            have = found.total - len(found.without)
            if have or not found.total:
                message = f"{have} of {found.total} namespaces have a value"
                steps.report.add("rule", found.rule, "ok", message)
            else:
                message = "no namespace has a value: compare the key with the namespaces' labels"
                steps.report.add("rule", found.rule, "warning", message)
            steps.show(found.lines())
    return labels


class Tally:
    """Collects the namespaces that have no value for a label rule, for each rule.

    For the key `*` these are namespaces with no label except the label of their name. Only the
    names of these namespaces are held.
    """

    def __init__(self, rules: Iterable[LabelRule]) -> None:
        # A rule without a key is a default for the labels that `*` finds.
        self._without: dict[LabelRule, list[str]] = {rule: [] for rule in rules if rule.key}
        self.total = 0

    def add(self, namespaces: Sequence[ObjectMeta]) -> None:
        """Check more namespaces."""
        self.total += len(namespaces)
        for rule, without in self._without.items():
            without.extend(each.name for each in namespaces if not _has_value(rule, each))

    def coverage(self) -> Iterator[Coverage]:
        """The coverage of each rule."""
        for rule, without in self._without.items():
            spelling = f"--{rule.source} {rule.key}"
            names = tuple(sorted(without))
            yield Coverage(spelling, rule.name, rule.default, self.total, names)


def _has_value(rule: LabelRule, namespace: ObjectMeta) -> bool:
    metadata = namespace.labels if rule.source == "label" else namespace.annotations
    if rule.key != WILDCARD:
        return bool(metadata.get(rule.key))
    return any(value for key, value in metadata.items() if key != NAME_LABEL)
