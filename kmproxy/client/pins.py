"""Pins: the first certificate of each kubelet, remembered so that another one is refused.

Knows which certificate is accepted, and the text form of the pins. Must not know
handshakes or files. A pin is the SHA-256 of a certificate in DER.

The text has a first line (`HEAD`) and one line for each pin: its key, the digest in
hexadecimal or `ca`, the node's name. If a person removes a line, the node's next
certificate counts as its first again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kmproxy.bounded_cache import BoundedCache
from kmproxy.errors import PinError

MAX_BYTES = 2 << 20
"""Bytes of all pins as text: about 14,000 nodes, whose pins take 8 MiB of memory."""

MAX_PINS = 1 << 16

HEAD = b"kmproxy-kubelet-pins 1\n"

BY_CA = "ca"
"""The digest of a pin for a node with a verified certificate: only verified ones are accepted."""

_LINE = re.compile(r"([!-~]{1,400}) (ca|[0-9a-f]{64}) ([!-~]{1,300})")


@dataclass(frozen=True, slots=True)
class Peer:
    """The server that a request is for. `key` finds its pin. Errors call it `name`.

    `listed` is true if its address comes from a Node object.
    """

    name: str
    key: str
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Pin:
    """The certificate that a node must show: the one of `digest`, or for `BY_CA` a verified one."""

    digest: str
    name: str


class PinBook:
    """The pins of all nodes, at most `MAX_BYTES`. The least recently used is forgotten first.

    `changed` is called after each change, but not by `restore`. If two
    certificates of a node arrive at the same time, the first call of `accept`
    pins its certificate.
    """

    def __init__(self) -> None:
        self._pins: BoundedCache[str, Pin] = BoundedCache(
            MAX_PINS, size=MAX_BYTES, weigh=lambda key, pin: len(_line(key, pin))
        )
        self.changed: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<PinBook {len(self._pins)} pins>"

    def __len__(self) -> int:
        return len(self._pins)

    def pin(self, key: str) -> Pin | None:
        """The pin for a key, or None. The call counts as a use of the pin."""
        return self._pins.get(key)

    def accept(self, peer: Peer, digest: str) -> bool:
        """Whether a certificate that no CA verifies is accepted. A node's first one is pinned."""
        pin = self.pin(peer.key)
        if pin is None:
            self._put(peer.key, Pin(digest, peer.name))
            return True
        return pin.digest == digest

    def verified(self, peer: Peer) -> None:
        """Record that a CA verified a node's certificate. Later ones have to be verified, too."""
        pin = self.pin(peer.key)
        if pin is None or pin.digest != BY_CA:
            self._put(peer.key, Pin(BY_CA, peer.name))

    def restore(self, pins: Mapping[str, Pin]) -> None:
        """Add stored pins. A node that already has a pin keeps it."""
        for key, pin in pins.items():
            if key not in self._pins:
                self._pins.put(key, pin)

    def encode(self) -> bytes:
        """The text of all pins, the least recently used pin first."""
        return HEAD + b"".join(_line(key, pin) for key, pin in self._pins.items())

    def _put(self, key: str, pin: Pin) -> None:
        self._pins.put(key, pin)
        self.changed()


def decode(data: bytes) -> dict[str, Pin]:
    """The pins of a text. Raises PinError unless each line is a pin with a new key."""
    if not data.startswith(HEAD):
        raise PinError("the file holds no pins, or another version of kmproxy wrote it")
    pins: dict[str, Pin] = {}
    for number, line in enumerate(data[len(HEAD) :].splitlines(), 2):
        match = _LINE.fullmatch(line.decode("ascii", "replace"))
        if match is None or match[1] in pins:
            raise PinError(f"line {number} is not a pin, or repeats a node")
        pins[match[1]] = Pin(match[2], match[3])
    return pins


def _line(key: str, pin: Pin) -> bytes:
    return f"{key} {pin.digest} {pin.name}\n".encode()
