"""The compiled engine of kmproxy."""

from collections.abc import Callable, Sequence
from typing import Self

INTERFACE: int
"""The interface, which kmproxy compares with the one that it knows."""

__version__: str

Counts = tuple[int, int, int, int, int, int, int, int, int]
"""Samples, enriched, unparsed, conflicts, unknown pods; dropped by metric, by namespace, as merged;
new series for which no room was taken yet."""

_Labels = tuple[bytes, list[tuple[bytes, bytes]]]

class Engine:
    """The engine of one exposition.

    It asks for names as they are spelled between quotes; `ask_metric` gets unescaped ones. If a
    function raises an exception, `read` raises it, and the same block can be read again after
    `family` was set to its value before.
    """

    family: bytes
    """The family of the last HELP, TYPE or UNIT line, unescaped."""

    def __new__(
        cls,
        *,
        naming: Sequence[bytes],
        each: bool,
        pods: bool,
        overwrite: bool,
        metrics: bool,
        namespaces: bool,
        drop: Sequence[bytes],
        strip: bool,
        ask_labels: Callable[[int, bytes], _Labels],
        ask_pod: Callable[[bytes, bytes], _Labels | None],
        ask_metric: Callable[[bytes, bytes], bool],
        ask_namespace: Callable[[bytes], bool],
        ask_room: Callable[[int], int],
    ) -> Self: ...
    def read(self, block: bytes, room: int) -> tuple[bytes, bytes, Counts]:
        """Reads whole lines, each with its newline. There is room for some new series.

        Returns the lines as they pass, and the lines that are neither samples, comments nor blank.
        Raises RuntimeError if the engine fails; from then on it always does.
        """
    def enter(self, kept: Sequence[bytes], dropped: Sequence[bytes]) -> bool | None:
        """Enters a series by its name and kept labels, and its dropped labels.

        Returns None if it is new, else whether it is another one with the same kept labels.
        """
    def forget(self) -> None:
        """Forgets all series."""
