"""Adds labels by other namespace labels than `namespace`, and the labels of pods.

Knows how samples are found fast, and where a sample must be read by itself. Must not know the rule
for one sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from kmproxy.exposition.base_enricher import BaseEnricher, OnConflict
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.finder import PLAIN_PAIRS, sample_finder, split_at_pairs
from kmproxy.exposition.grammar import by_lines
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pods import PodLookup, PodsNeededError
from kmproxy.exposition.remembered import RememberedLabels
from kmproxy.exposition.sample_editor import MAX_TEXT, NOTHING, Edit, Outcome, SampleEditor
from kmproxy.exposition.splitter import KeySplitter, key_splitter

MAX_EDITS = 2 << 20
"""Bytes that one memo of edited texts takes between two blocks, at most."""

_OVERHEAD = 250  # bytes for an edit besides its texts, approximately


class EditMemo(dict[bytes, Edit]):
    """Remembers the edits of texts. A text that is not remembered is edited when it is asked for.

    The texts that are asked for between two calls of `trim` are remembered too, if they are
    not longer than `MAX_TEXT`.
    """

    def __init__(self, edit: Callable[[bytes], Edit]) -> None:
        super().__init__()
        self._edit = edit
        self._size = 0

    def __missing__(self, text: bytes) -> Edit:
        """Edits a text. Raises PodsNeededError."""
        edit = self._edit(text)
        if len(text) <= MAX_TEXT:
            self[text] = edit
            self._size += len(text) + len(edit[0] or b"") + _OVERHEAD
        return edit

    def trim(self) -> None:
        """Forgets all edits if they take more than `MAX_EDITS` bytes."""
        if self._size > MAX_EDITS:
            self.clear()
            self._size = 0


class GeneralEnricher(BaseEnricher):
    """Adds labels to the samples of one exposition, by any namespace labels, and pods.

    `lookup`, `names` and the order of the output are as for Enricher, and `pods` adds
    the labels of pods. The joined output does not depend on how the input is cut into
    pieces. Where nothing is added, the output is the input.

    A plain line that bears one namespace label, and its pod right behind it, costs one
    look-up of both in a dictionary (`KeySplitter`). A fixed number of expressions read the
    other lines. Each expression is linear. A sample among these lines costs one look-up of
    the text in its braces. Each text is edited by itself, in linear time. Edits are
    remembered, in `MAX_EDITS` bytes and the texts of one block.

    If the look-up of a pod raises PodsNeededError, `feed` and `finish` raise it.
    Then nothing was taken and nothing was counted, and the call can be repeated.
    """

    __slots__ = (
        "_editor",
        "_edits",
        "_finder",
        "_keys",
        "_spaces",
    )

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        spaces: NamespaceLabels,
        *,
        pods: PodLookup | None = None,
        names: frozenset[bytes] = frozenset(),
        on_conflict: OnConflict = "keep",
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(RememberedLabels(lookup, names, pods), max_line)
        self._editor = SampleEditor(self._labels, spaces, overwrite=on_conflict == "overwrite")
        self._spaces = frozenset(spaces.names)
        self._finder = sample_finder(self._spaces | ({b"pod"} if pods else set()))
        self._keys = EditMemo(self._edit_key)
        self._searched = self._editor.names  # the names that the last splitter knew

    def feed(self, data: bytes) -> bytes:
        """Takes the next piece. Returns the bytes that can be passed on already."""
        counts = self.counts()
        try:
            return super().feed(data)
        except PodsNeededError:
            self.restore(counts)
            raise

    def finish(self) -> bytes:
        """Ends the input. Returns the rest, which may be a line without a newline."""
        counts = self.counts()
        try:
            return super().finish()
        except PodsNeededError:
            self.restore(counts)
            raise

    def _block(self, block: bytes) -> bytes:
        """Enriches whole lines, each ending in a newline.

        Unless most of the block is plain, it is read as lines of any shape.
        """
        found = self._split(block)
        if found is None:
            passed = self._between(block)
        else:
            parts, odd, edits = found
            parts[2::3] = [text or b"" for text, _ in edits]
            for at in odd:
                parts[at], parts[at + 1] = self._between(parts[at]), b""
            _leave_out(parts, [3 * n + 1 for n, edit in enumerate(edits) if edit[0] is None])
            self._count(outcome for _, outcome in edits)
            passed = b"".join(parts)
        self._keys.trim()
        return passed

    def _edit_key(self, key: bytes) -> Edit:
        """Edits a key of `KeySplitter`: pairs of a plain line, without the last quote.

        The line bears no other name that counts, so its edit is that of these pairs.
        """
        if not key:
            return b"", NOTHING
        return self._editor.edit_plain(key + b'"')

    def _split(self, block: bytes) -> tuple[list[bytes], list[int], list[Edit]] | None:
        """Splits the block with `KeySplitter`, and edits each of its keys.

        A sample is not plain if it bears a label name that one of the keys adds. So the
        split is repeated when a look-up brings a new name. Returns None if the second
        split brings a new name too, or if the split finds too many lines that are not plain.
        """
        if not any(name in block for name in self._spaces):
            return None
        for _ in range(2):
            if (splitter := self._splitter()) is None:
                return None
            parts, odd = splitter.split(block)
            if len(odd) > 8 + len(block) // 512:
                return None
            edits = list(map(self._keys.__getitem__, parts[2::3]))
            if self._searched == self._editor.names:
                return parts, odd, edits
        return None

    def _splitter(self) -> KeySplitter | None:
        """Returns the splitter for the names known so far; None if they are or grow too many."""
        names = self._editor.names
        if not self._search(names):
            return None
        return key_splitter(names, self._spaces, pods=self._labels.pods)

    def _between(self, text: bytes) -> bytes:
        """Enriches whole lines of any shape. The first of them are mostly passing lines."""
        end = self._finder.passing.match(text).end()  # type: ignore[union-attr] # it may be empty
        passed = text[:end]
        self.samples += passed.count(b"\n") - passed.count(b"\n#") - passed.startswith(b"#")
        if end == len(text):
            return passed
        parts = PLAIN_PAIRS.split(by_lines(text[end:]))
        self._edit_parts(parts, self._editor.edit_plain)
        # A newline leads each line between two plain lines; one more ends the text.
        parts[-1] = parts[-1][:-1]
        odd = [at for at in range(0, len(parts), 4) if parts[at]]
        others: list[bytes] = []
        for at in odd:
            found = split_at_pairs(parts[at] + b"\n") if b"{" in parts[at] else [parts[at] + b"\n"]
            self._edit_parts(found, self._editor.edit)
            found[-1] = found[-1][:-1]
            others += found[::4]
            parts[at] = b"".join(found)
        self._count_lines(b"".join([*others, b"\n"]))
        return passed + b"".join([*parts, b"\n"])[1:]

    def _edit_parts(self, parts: list[bytes], edit: Callable[[bytes], Edit]) -> None:
        """Edits samples: other text, then the text before the braces' text, that text, the rest."""
        edits: list[Edit] = []
        try:
            edits.extend(map(edit, parts[2::4]))
        except RepeatedLabelError as error:
            at = 4 * len(edits) + 1
            raise error.of(b"".join(parts[at : at + 3]).lstrip(b"\n")) from None
        parts[2::4] = [text or b"" for text, _ in edits]
        for number, (text, _) in enumerate(edits):
            if text is None:
                parts[4 * number + 1 : 4 * number + 4] = b"", b"", b""
        self._count(outcome for _, outcome in edits)

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        """Adds the counts of samples. Most of them have the same outcome object."""
        for outcome, count in Counter(outcomes).items():
            self.samples += count * outcome.samples
            self.enriched += count * outcome.enriched
            self.unparsed += count * outcome.unparsed
            self.conflicts += count * outcome.conflicts
            self.unknown_pods += count * outcome.unknown_pods


def _leave_out(parts: list[bytes], places: Iterable[int]) -> None:
    """Removes plain lines from the parts of a split, each with its newline.

    `places` are those of the lines' heads, in order. The comments between lines stay.
    """
    for at in places:
        before, rest = parts[at - 1], parts[at + 2]
        parts[at - 1] = before[: before.rfind(b"\n") + 1]
        parts[at : at + 3] = b"", b"", rest[rest.index(b"\n") + 1 :]
