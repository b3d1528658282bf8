"""--share-reads on the command line: how long, how much, and beside which settings."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config
from kmproxy.errors import ConfigError


def problems(*flags):
    """The problems of a command line."""
    with pytest.raises(ConfigError) as caught:
        read_config(flags)
    return list(caught.value.problems)


def test_off_by_default():
    """Nothing is shared that nobody asked to share."""
    config, warnings = read_config([])
    assert config.kubelet.share_reads is None
    assert config.kubelet.share_reads_max_bytes == 16 << 20
    assert warnings == []


@pytest.mark.parametrize(("text", "seconds"), [("25s", 25), ("1m", 60), ("500ms", 0.5)])
def test_how_long(text, seconds):
    """A duration as Go spells it, of a minute at most."""
    assert read_config([f"--share-reads={text}"])[0].kubelet.share_reads == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0s", "'0s' must be greater than 0s"),
        ("-5s", "'-5s' is not a duration such as 30s, 1m30s or 500ms"),
        ("61s", "'61s' is more than 60s"),
        ("2m", "'2m' is more than 60s"),
        ("true", "'true' is not a duration such as 30s, 1m30s or 500ms"),
    ],
)
def test_no_time_to_share_a_read_for(text, said):
    """None, or more than scrapers come again after."""
    assert problems(f"--share-reads={text}") == [f"--share-reads: {said}"]


@pytest.mark.parametrize("text", ["0", "-1", "16MiB"])
def test_no_number_of_bytes(text):
    """It is a count, as for other limits in bytes."""
    flags = ("--share-reads=25s", f"--share-reads-max-bytes={text}")
    assert problems(*flags) == [
        f"--share-reads-max-bytes: {text!r} is not a whole number of at least 1"
    ]


def test_not_beside_stripped_timestamps():
    """A sample of an older read would be stored as one of now."""
    (said,) = problems("--share-reads=25s", "--timestamps=strip")
    assert said == (
        "--share-reads makes no sense beside --timestamps=strip: without its timestamp, an old "
        "sample looks new"
    )
    assert read_config(["--share-reads=25s", "--timestamps=keep"])[1] == []


def test_a_limit_of_nothing():
    """The bytes have no effect where nothing is shared."""
    assert read_config(["--share-reads-max-bytes=1"])[1] == [
        "--share-reads-max-bytes has no effect without --share-reads"
    ]
    assert read_config(["--share-reads-max-bytes=1", "--share-reads=5s"])[1] == []
