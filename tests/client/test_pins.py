"""The pins: accepted certificates, changes to write, and the text of the file."""

from __future__ import annotations

import pytest

from kmproxy.client import pins
from kmproxy.client.pins import BY_CA, HEAD, Peer, Pin, PinBook, decode
from kmproxy.errors import PinError

A, B = "a" * 64, "b" * 64
NODE, OTHER = Peer("node-a", "uid:1"), Peer("node-b", "uid:2")


def test_the_first_and_the_same_again():
    """Another certificate is refused and not pinned. Other nodes have their own pins."""
    book = PinBook()
    assert [book.accept(NODE, digest) for digest in (A, A, B, A)] == [True, True, False, True]
    assert book.accept(OTHER, B)
    assert book.pin("uid:1") == Pin(A, "node-a")


def test_after_a_ca():
    """A node with a verified certificate may not go back to an unverified one."""
    book = PinBook()
    book.verified(NODE)
    assert not book.accept(NODE, A)
    assert book.accept(OTHER, A)
    book.verified(OTHER)
    assert not book.accept(OTHER, A)
    assert book.pin("uid:2") == Pin(BY_CA, "node-b")


def test_what_is_a_change():
    """Only new facts are a change to write. The same certificate is none."""
    book, changes = PinBook(), []
    book.changed = lambda: changes.append(book.encode())
    for _ in range(2):
        book.accept(NODE, A)
        book.accept(NODE, B)
        book.verified(OTHER)
    assert changes == [HEAD + f"uid:1 {A} node-a\n".encode(),
                       HEAD + f"uid:1 {A} node-a\nuid:2 ca node-b\n".encode()]  # fmt: skip


def test_what_is_kept_comes_back():
    """Pins survive as text. A read pin does not replace a present one."""
    book = PinBook()
    book.accept(NODE, A)
    book.verified(OTHER)
    book.accept(Peer("fe80::1%eth0", "address:[fe80::1%eth0]:10250"), B)
    again = PinBook()
    again.accept(NODE, B)
    again.restore(decode(book.encode()))
    assert again.accept(NODE, B)
    assert not again.accept(OTHER, A)
    assert len(again) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"kmproxy-kubelet-pins 2\n",
        b"\xff" * 100,
        HEAD + b"uid:1\n",
        HEAD + b"\n",
        HEAD + f"uid:1 {A}\n".encode(),
        HEAD + f"uid:1 {A[:-1]} n\n".encode(),
        HEAD + f"uid:1 {A.upper()} n\n".encode(),
        HEAD + f"uid:1 {A} n\nuid:1 {B} n\n".encode(),
        HEAD + f"uid:1 {A} n m\n".encode(),
        HEAD + f"uid:\xe9 {A} n\n".encode(),
        HEAD + f"{'u' * 500} {A} n\n".encode(),
    ],
)
def test_what_is_no_text_of_pins(data):
    """One invalid line invalidates the file, because a lost line could be a pin."""
    with pytest.raises(PinError):
        decode(data)


def test_the_bound(monkeypatch):
    """The bound is in bytes. The node that was asked longest ago is forgotten first."""
    monkeypatch.setattr(pins, "MAX_BYTES", 10_000)
    book = PinBook()
    for number in range(1000):
        assert book.accept(Peer("n" * 200, f"uid:{number}"), A)
        assert book.accept(NODE, A)
        assert len(book.encode()) <= 10_000 + len(HEAD)
    assert not book.accept(NODE, B)
    assert book.accept(Peer("n" * 200, "uid:990"), A)
    assert not book.accept(Peer("n" * 200, "uid:990"), B)
    assert 30 < len(book) < 40
