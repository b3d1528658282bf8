"""A push to Loki: its body, and the meaning of an answer.

Knows the JSON of a push, and which status is about a line, the endpoint or the moment. Must not
know connections, containers or the content of a line.

Loki answers 400 also when it has stored the good lines of a push, and 429 when it has stored a
part. So lines that are sent again after such an answer may be stored twice. Loki keeps a line only
once if its stream, nanosecond and text are the same as those of the line before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec

from kmproxy.logs.lines import Mark

PATHS: Final = "Loki: /loki/api/v1/push, VictoriaLogs: /insert/loki/api/v1/push"

REASONS: Final = ("rejected", "too_long", "too_new", "too_old", "labels")
"""Why an endpoint refuses a line: the values of the metric's label that come from here."""

ANSWER_BYTES: Final = 4096
"""Bytes of an answer's body that are read."""

_WORDS: Final = (
    ("too_old", re.compile(rb"too far behind|too old|out of order", re.IGNORECASE)),
    ("too_new", re.compile(rb"too new", re.IGNORECASE)),
    ("too_long", re.compile(rb"max entry size|too long: max|line too long|exceeds the maximum "
                            rb"(?:size|length)", re.IGNORECASE)),
    ("labels", re.compile(rb"label name|label value|duplicate label|structured metadata|"
                          rb"error parsing labels|at least one label pair", re.IGNORECASE)),
)  # fmt: skip
"""The words by which Loki's validation refuses a line, and the reason that each means."""

_NOT_A_LINE: Final = frozenset({401, 403, 404, 405, 406, 407, 411, 414, 415, 421, 426, 431})
"""Statuses of a wrong URL, a wrong way or a wrong credential. No line is at fault."""

_NOT_A_LINE_WORDS: Final = re.compile(
    rb"unsupported path|no org id|cannot parse common params from request", re.IGNORECASE
)
"""The beginning of a 400 for a wrong path or a wrong tenant: VictoriaLogs knows no 404."""

_TOO_OLD: Final = re.compile(
    rb"entry with timestamp [^\n']{1,100} ignored, reason: 'entry (?:too far behind|out of order)"
)
_ALL: Final = re.compile(rb"total ignored: (\d{1,9}) out of (\d{1,9})\b")
"""Loki names each line that is too old for its stream, up to 10, and then counts them."""

DOUBTS: Final = 8
"""Lines that may be refused alone, one after the other, by an endpoint that is not proven. After
them each refusal is followed by a delay."""

_LATER: Final = frozenset({408, 425, 429})


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A line as it is pushed.

    `labels` and `value` are JSON. `size` is the number of bytes of the line. `owner` is the queue
    that the line came from.
    """

    labels: bytes
    value: bytes
    size: int
    time: int
    owner: object
    mark: Mark
    acknowledge: Callable[[Mark], None]


Entries = Sequence[Entry]


def entry_value(time: int, text: bytes, metadata: bytes) -> tuple[bytes, bool]:
    """Returns the JSON of a line's entry, and whether bytes that are not UTF-8 were replaced."""
    replaced = False
    try:
        shown = text.decode()
    except UnicodeDecodeError:
        shown, replaced = text.decode(errors="replace"), True
    line = msgspec.json.encode(shown)
    if metadata:
        return b'["%d",%b,%b]' % (time, line, metadata), replaced
    return b'["%d",%b]' % (time, line), replaced


STREAM_BYTES: Final = len('{"stream":,"values":[]},')
BODY_BYTES: Final = len('{"streams":[]}')


def body(entries: Entries) -> bytes:
    """Returns the JSON of a push. The lines of a stream are in the order of the entries."""
    streams: dict[bytes, list[bytes]] = {}
    for entry in entries:
        streams.setdefault(entry.labels, []).append(entry.value)
    return b'{"streams":[%b]}' % b",".join(
        b'{"stream":%b,"values":[%b]}' % (labels, b",".join(values))
        for labels, values in streams.items()
    )


class Verdict(Enum):
    """The meaning of an answer."""

    TAKEN = "taken"
    LATER = "later"
    """The endpoint is overloaded or fails. The same push is tried again."""
    ENDPOINT = "endpoint"
    """The URL or the credential is wrong. The same push is tried again."""
    LINES = "lines"
    """A line is at fault, or there are too many of them."""


def judge(status: int, text: bytes = b"") -> Verdict:
    """Returns the meaning of a status, and of the beginning of the body.

    Only 204 means that the lines were taken: a page of a wrong URL is often a 200.
    """
    if status == 204:
        return Verdict.TAKEN
    if status >= 500 or status in _LATER:
        return Verdict.LATER
    if 400 <= status < 500 and status not in _NOT_A_LINE and not _NOT_A_LINE_WORDS.match(text):
        return Verdict.LINES
    return Verdict.ENDPOINT


def reason_of(status: int, text: bytes) -> str:
    """Returns one of `REASONS` for a line that was refused alone."""
    if status == 413:
        return "too_long"
    for reason, words in _WORDS:
        if words.search(text[:ANSWER_BYTES]):
            return reason
    return "rejected"


def refuses_all(status: int, text: bytes, part: Entries) -> bool:
    """Returns whether an answer names each line of a push as too old for its stream.

    An answer is about one stream. Lines that it only counts may have another reason, such as a
    limit of the moment, so they are not meant.
    """
    number = len(part)
    if status != 400 or len(_TOO_OLD.findall(text)) != number:
        return False
    counted = _ALL.search(text)
    is_one_stream = all(entry.labels == part[0].labels for entry in part)
    return is_one_stream and counted is not None and {*map(int, counted.groups())} == {number}


def advice(status: int) -> str:
    """Returns what to do about a status, for a log line. It holds no text of the endpoint."""
    match status:
        case 401:
            return "its credential or its tenant is not accepted, see the loki section"
        case 403:
            return "its credential has no right to push, see the loki section"
        case 404 | 405:
            return f"is the path of --loki-url right? Usual paths: {PATHS}"
        case 429:
            return "it takes no more at the moment, see the limits of the tenant"
        case _ if status >= 500 or status in _LATER:
            return "see its log"
        case _ if 300 <= status < 400:
            return "a redirect is not followed: write the URL that it leads to"
        case _ if 200 <= status < 300:
            return f"a push is answered with 204: is --loki-url right? Usual paths: {PATHS}"
        case _:
            return f"no line was taken yet: is --loki-url right? Usual paths: {PATHS}"


@dataclass(slots=True)
class Endpoint:
    """What is known of the endpoint: whether it has shown that it reads pushes.

    It has, once it took one, or refused a line in the words of Loki. Before that, an endpoint that
    refuses everything is no reason to leave a line out: its URL may be wrong.
    """

    proven: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer settles.

    `lost`, each with its reason, and then `taken` are the entries that are done with. `repeated` is
    the number of entries that will be sent again although the endpoint may have stored them.
    `wait`: the next push waits for a delay, because of the endpoint and not of a line.
    """

    taken: Entries = ()
    lost: Sequence[tuple[Entry, str]] = ()
    repeated: int = 0
    wait: bool = False


@dataclass(slots=True)
class Delivery:
    """The pushes by which the entries of one batch are taken, or are left out one by one.

    Entries are done with in their order. Entries that were refused before the endpoint is proven
    are set aside. They are tried again once it is, before anything is done with. There are at most
    two pushes for each entry, or four if it was set aside, besides those that are tried again.
    """

    entries: Entries
    endpoint: Endpoint
    _parts: list[Entries] = field(init=False)
    _aside: list[Entry] = field(init=False, default_factory=list)
    _taken: Entries = field(init=False, default=())
    _below: int = field(init=False, default=0)
    """Entries were `_taken` after those set aside. They are done with when `_below` parts are
    left."""

    def __post_init__(self) -> None:
        self._parts = [self.entries] if self.entries else []

    def __repr__(self) -> str:
        return f"<Delivery {sum(map(len, self._parts))} of {len(self.entries)} entries left>"

    def part(self) -> Entries | None:
        """The entries of the next push, or None if all are done with."""
        return self._parts[-1] if self._parts else None

    def answered(self, status: int, text: bytes = b"") -> Outcome:
        """Takes the answer to the push of `part`."""
        part = self._parts[-1]
        match judge(status, text):
            case Verdict.TAKEN:
                return self._take()
            case Verdict.LATER:
                return Outcome(repeated=len(part), wait=True)
            case Verdict.ENDPOINT:
                return Outcome(wait=True)
        is_all = len(part) == 1 or refuses_all(status, text, part)
        return self._refuse(status, reason_of(status, text), is_all=is_all)

    def failed(self, *, stored: bool) -> Outcome:
        """The push of `part` got no answer. `stored`: the endpoint may have taken the push."""
        return Outcome(repeated=len(self._parts[-1]) if stored else 0, wait=True)

    def _take(self) -> Outcome:
        self.endpoint.proven = True
        part = self._parts.pop()
        if not self._aside:
            return Outcome([*part, *self._released()])
        self._taken, self._below = part, len(self._parts)
        self._retry_aside()
        return Outcome()

    def _refuse(self, status: int, reason: str, *, is_all: bool) -> Outcome:
        """Halve the part, or leave its entries out, or set them aside, if all are at fault."""
        part = self._parts.pop()
        if reason != "rejected" and (status != 413 or len(part) == 1):
            self.endpoint.proven = True
        proven = self.endpoint.proven
        doubtful = not proven and len(self._aside) >= DOUBTS
        if not is_all:
            middle = len(part) // 2
            self._parts += [part[middle:], part[:middle]]
        elif proven and not self._aside:
            return Outcome(self._released(), [(entry, reason) for entry in part])
        else:
            self._aside += part
        if self._aside and (proven or not self._parts):
            # Either all are tried once more, or nothing was taken: the URL may be wrong.
            doubtful = not proven
            self._retry_aside()
        return Outcome(repeated=0 if status == 413 else len(part), wait=doubtful)

    def _retry_aside(self) -> None:
        self._parts.append(self._aside)
        self._aside = []

    def _released(self) -> Entries:
        """The entries that were taken after those set aside, if these are done with."""
        if not self._taken or len(self._parts) > self._below:
            return ()
        taken, self._taken = self._taken, ()
        return taken
