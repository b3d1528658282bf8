"""Text that rotates on disk, and the form of a token."""

from __future__ import annotations

import pytest

from kmproxy.client.credentials import TOKEN_AGE, RotatingText, is_token
from kmproxy.client.tls import LOOK_AGAIN
from kmproxy.config.types import File, Secret
from kmproxy.errors import CredentialError
from tests.conftest import credential_failures


@pytest.fixture
def token(mount, clock, own_metrics):
    """The text of a file that first held `one`."""
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
    """A swap by the kubelet is read within a minute, or at once on request."""
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
    """A bad file is counted and logged at each look, without its contents."""
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
    """Text of the configuration never changes. An invalid one is refused without being shown."""
    errors = own_metrics.credential_errors
    options = {"credential": "token", "clock": clock, "errors": errors}
    text = RotatingText(Secret("planted"), "the token", is_token, **options)
    clock.now += TOKEN_AGE
    assert text.current() == "planted"
    assert "planted" not in repr(text)
    with pytest.raises(CredentialError, match="the token: the text is not a valid token") as raised:
        RotatingText(Secret("planted\r\nHost: x"), "the token", is_token, **options)
    assert "planted" not in str(raised.value)


def test_a_minute():
    """A rotated text is used within a minute."""
    assert TOKEN_AGE <= 60
    assert LOOK_AGAIN <= 60


def test_what_is_a_token():
    """A token is one word that can stand in a header."""
    assert is_token("eyJ.a-b_c~+/=")
    for text in ("", " ", "a b", "a\n", "a\x00", "\u00e9"):
        assert not is_token(text), text
