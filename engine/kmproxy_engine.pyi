"""The compiled engine of kmproxy."""

from collections.abc import Sequence
from typing import NoReturn, Protocol, Self

INTERFACE: int
"""The interface, which kmproxy compares with the one that it knows."""

__version__: str

Counts = tuple[int, int, int, int, int, int, int, int, int, int]
"""Samples, enriched, unparsed, conflicts, unknown pods; dropped by metric, by namespace, as merged;
of a tenant: hidden, undecided."""

def may_be_sample(line: bytes, /) -> bool:
    """Whether `Engine.read` returns a line for a second reading, if it takes it for no sample."""

class Host(Protocol):
    """Answers the questions of an engine, once for each name, as far as it remembers them.

    Names are unescaped, but for that of `ask_namespace`. Labels are rendered: `,team="a"` for each.
    """

    def ask_labels(self, namespace: bytes, /) -> bytes:
        """The labels of a namespace, without a prefix."""
    def ask_pod(self, namespace: bytes, pod: bytes, /) -> bytes | None:
        """The labels of a pod. None if its samples are left out."""
    def ask_metric(self, name: bytes, family: bytes, /) -> bool:
        """Whether a metric is selected."""
    def ask_namespace(self, namespace: bytes, /) -> bool:
        """Whether a namespace is selected."""
    def refuse_repeats(self, metric: bytes, label: bytes, /) -> NoReturn:
        """Raises the error of a sample that repeats labels that are overwritten too often.

        The label is the one at which it does. The metric's name is unescaped.
        """
    def ask_room(self, series: int, /) -> int:
        """Takes room for new series. Returns for how many more there is room."""

class TenantHost(Protocol):
    """Answers the questions of a tenant's engine."""

    def ask_verdict(self, namespace: bytes, /) -> int:
        """The verdict about a namespace: 0 passes, 1 is not wanted, 2 is hidden, 3 is undecided.

        As long as it is undecided, each `read` asks for it again, once.
        """

class Engine:
    """The engine of one exposition.

    It refers to no host between two calls. If the host raises an exception, `read` raises it, and
    the same lines can be read again after `family` was set to its value before.
    """

    family: bytes
    """The family of the last HELP, TYPE or UNIT line, unescaped."""

    def __new__(
        cls,
        *,
        naming: Sequence[bytes],
        prefixes: Sequence[bytes],
        pods: bool,
        overwrite: bool,
        metrics: bool,
        namespaces: bool,
        drop: Sequence[bytes],
        strip: bool,
        tenant: bool,
    ) -> Self: ...
    def read(
        self, first: bytes, data: bytes, start: int, end: int, room: int, host: Host | TenantHost
    ) -> tuple[bytes, bytes, Counts]:
        """Reads whole lines, each with its newline: `first`, then `data` from `start` to `end`.

        There is room for some new series.

        Returns the lines as they pass, and those that were not taken for samples, but may look like
        some.
        Raises RuntimeError if the engine fails; from then on it always does.
        """
    def take_series(self) -> int:
        """Returns how many series the last `read` entered without room taken for them, once.

        That is so after an error, too.
        """
    def enter(
        self,
        metric: bytes,
        kept: Sequence[tuple[bytes, bytes]],
        dropped: Sequence[tuple[bytes, bytes]],
    ) -> bool | None:
        """Enters a series: its labels that are not empty, kept and dropped ones.

        Returns None if it is new, else whether it is another one with the same kept labels.
        """
    def forget(self) -> None:
        """Forgets all series."""
