"""Text that rotates on disk, and what can be a token."""

from __future__ import annotations

import pytest

from kmproxy.client.credentials import TOKEN_AGE, RotatingText, is_token
from kmproxy.client.tls import LOOK_AGAIN
from kmproxy.config.types import File, Secret
from kmproxy.errors import CredentialError
from tests.conftest import credential_failures


@pytest.fixture
def token(mount, clock, own_metrics):
    """The text of a file that held `one` at first."""
    mount.swap(token="one\n")
    return RotatingText(
        File(str(mount.path / "token")),
        "the token",
        is_token,
        credential="token",
        clock=clock,
        errors=own_metrics.credential_errors,
    )


def test_a_swap_of_links(token, mount, clock):
    """What the kubelet swaps in is read a minute later at most, or at once when asked."""
    mount.swap(token="two")
    clock.now += TOKEN_AGE - 0.1
    assert token.current() == "one"
    clock.now += 0.1
    assert token.current() == "two"
    mount.swap(token="three")
    assert token.current() == "two"
    assert token.current(anew=True) == "three"


@pytest.mark.parametrize("files", [{}, {"token": b""}, {"token": b"a b"}, {"token": b"\xff"}])
def test_a_bad_swap_keeps_the_last_good_one(token, mount, clock, own_metrics, caplog, files):
    """It is counted and logged each time it is looked at, without what it holds."""
    mount.swap(**files)
    for count in (1, 2):
        clock.now += TOKEN_AGE
        assert token.current() == "one"
        assert credential_failures(own_metrics, "token") == count
    assert "the last good one stays in use" in caplog.text
    assert "a b" not in caplog.text
    mount.swap(token="two")
    clock.now += TOKEN_AGE
    assert token.current() == "two"


def test_text_of_the_configuration(clock, own_metrics):
    """It stays as it is; what it cannot be is refused without being shown."""
    errors = own_metrics.credential_errors
    options = {"credential": "token", "clock": clock, "errors": errors}
    text = RotatingText(Secret("planted"), "the token", is_token, **options)
    clock.now += TOKEN_AGE
    assert text.current() == "planted"
    assert "planted" not in repr(text)
    with pytest.raises(CredentialError, match="the token: it is not a token") as raised:
        RotatingText(Secret("planted\r\nHost: x"), "the token", is_token, **options)
    assert "planted" not in str(raised.value)


def test_a_minute():
    """What has rotated is used within a minute."""
    assert TOKEN_AGE <= 60
    assert LOOK_AGAIN <= 60


def test_what_is_a_token():
    """One word that can stand in a header."""
    assert is_token("eyJ.a-b_c~+/=")
    for text in ("", " ", "a b", "a\n", "a\x00", "\u00e9"):
        assert not is_token(text), text
