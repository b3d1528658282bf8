"""The labels by which a sample names its namespace.

Knows their names, and the prefixes of the labels to add. Must not know lines, or where the setting
comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamespaceLabels:
    """The names of the labels that hold a namespace.

    Without `prefixes`, the first of `names` that a sample bears, not empty, names its
    namespace. With `prefixes`, one for each of `names`, each of these labels that is
    not empty names a namespace, and the labels of that namespace get the prefix. A
    sample then names several namespaces. The labels of a namespace stand right after
    the pair that names it.

    A sample that bears one of `names` twice is not understood. Raises ValueError if there is
    no name, a name twice, or another number of prefixes than of names.
    """

    names: tuple[bytes, ...] = (b"namespace",)
    prefixes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError("the namespace labels must be one or more names, each once")
        if self.prefixes and len(self.prefixes) != len(self.names):
            raise ValueError("each namespace label needs one prefix, or none has a prefix")

    @property
    def default(self) -> bool:
        """Whether only `namespace` names a namespace, and no prefix is added."""
        return self.names == (b"namespace",) and not any(self.prefixes)

    @property
    def with_prefixes(self) -> tuple[tuple[bytes, bytes], ...]:
        """Each name with its prefix, which may be empty."""
        return tuple(zip(self.names, self.prefixes or (b"",) * len(self.names), strict=True))

    def naming(self, borne: Mapping[bytes, bytes]) -> list[bytes]:
        """Returns the labels that name a namespace, in order, if a sample bears these labels.

        `borne` maps the name of each label to its value.
        """
        found = [name for name in self.names if borne.get(name)]
        return found if self.prefixes else found[:1]

    def named(self, labels: Iterable[tuple[bytes, re.Match[bytes]]]) -> list[bytes] | None:
        """Returns the namespaces that a sample names, in order, as it spells them between quotes.

        `labels` are those of `Sample.labels`. Returns None if the sample is not understood.
        """
        borne: dict[bytes, bytes] = {}
        for name, pair in labels:
            if name in self.names:
                if name in borne:
                    return None
                borne[name] = pair["value"][1:-1]
        return [borne[name] for name in self.naming(borne)]
