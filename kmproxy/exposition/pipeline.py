"""All that is done to one exposition, in order: select, enrich, add the info metric.

Knows the stages and their order. Must not know what each of them does to a
line. A stage that is not asked for is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kmproxy.exposition.enricher import Enricher, info_metric
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.selection import Selection, Selector, SeriesRoom

_END = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to an exposition. As it is by default, nothing.

    `names` are those of the labels that are added, as far as they are known before. `info` adds
    the info metric at the end. `max_line` is in bytes: a longer line passes as it came.
    """

    names: frozenset[bytes] = frozenset()
    on_conflict: Literal["keep", "overwrite"] = "keep"
    selection: Selection = field(default_factory=Selection)
    info: bool = False
    max_line: int = MAX_LINE


class Pipeline:
    """One exposition from the kubelet's bytes to those that are served.

    `enricher` and `selector` (None where everything is selected) hold the
    counts. Several at once share a `room`; `close` gives back what one had of it.
    `feed` and `finish` raise SeriesError, as the selector does.
    """

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        recipe: Recipe,
        *,
        room: SeriesRoom | None = None,
    ) -> None:
        self.enricher = Enricher(
            lookup, names=recipe.names, on_conflict=recipe.on_conflict, max_line=recipe.max_line
        )
        self.selector = None
        if not recipe.selection.everything:
            self.selector = Selector(recipe.selection, max_line=recipe.max_line, room=room)
        self._info = _InfoStage(self.enricher) if recipe.info else None

    def __repr__(self) -> str:
        return f"<Pipeline {self.selector!r} {self.enricher!r}>"

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what can be passed on already."""
        if self.selector is not None:
            data = self.selector.feed(data)
        data = self.enricher.feed(data)
        return data if self._info is None else self._info.feed(data)

    def finish(self) -> bytes:
        """The input is complete: return the rest."""
        data = b""
        if self.selector is not None:
            data = self.enricher.feed(self.selector.finish())
        data += self.enricher.finish()
        return data if self._info is None else self._info.finish(data)

    def close(self) -> None:
        """No more is to come; the counts stay."""
        if self.selector is not None:
            self.selector.forget()


class _InfoStage:
    """Adds the info metric at the end, before OpenMetrics' end marker where there is one.

    Between calls at most the bytes of that marker are held.
    """

    def __init__(self, enricher: Enricher) -> None:
        self._enricher = enricher
        self._held = b""  # the end of what came: a last line that is the marker, or begins it
        self._whole = True  # whether what was passed on ends in a newline

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        start = data.rfind(b"\n", max(0, len(data) - len(_END) - 1), max(0, len(data) - 1)) + 1
        at_line = self._whole if start == 0 and len(data) <= len(_END) else start > 0
        self._held = data[start:] if at_line and _END.startswith(data[start:]) else b""
        passed = data[: len(data) - len(self._held)]
        if passed:
            self._whole = passed.endswith(b"\n")
        return passed

    def finish(self, data: bytes) -> bytes:
        passed, end = self.feed(data), self._held
        if end.rstrip(b"\n") != _END[:-1]:
            passed, end = passed + end, b""
        whole = passed.endswith(b"\n") if passed else self._whole
        return passed + (b"" if whole else b"\n") + info_metric(self._enricher.seen) + end
