"""The settings of `kmproxy logs --events`, and the problems with them."""

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.config.loader import Layer, load_logs
from kmproxy.config.logs_values import LeaseName, parse_lease
from kmproxy.errors import ConfigError

URL = "--loki-url=http://loki:3100/loki/api/v1/push"


def problems(*flags):
    """The problems of a command line."""
    with pytest.raises(ConfigError) as caught:
        read_logs([URL, *flags])
    return caught.value.problems


def test_the_defaults():
    """No events, and a Lease in the pod's own namespace."""
    command, warnings = read_logs([URL])
    assert warnings == []
    assert command.logs.events is False
    assert command.logs.events_lease == LeaseName("kmproxy-logs-events")


def test_a_file():
    """The same settings as keys."""
    values = {"loki-url": URL[11:], "events": True, "events-lease": "ops/l", "source": "none"}
    command, _ = load_logs([Layer("f", "", values)])
    assert command.logs.events
    assert str(command.logs.events_lease) == "ops/l"


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "/b", "a/b/c", "A", "a b", "-a", "a..b/c", "x" * 300]
)
def test_impossible_leases(text):
    """A name that no Lease can have."""
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        parse_lease(text)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--source=none",), "--source=none: nothing is left to send without --events"),
        (("--source=none", "--events", "--node-name-or-ip=n1"), "--node-name-or-ip makes no sense"),
        (("--source=none", "--events", "--kubelet-tls-pin"), "beside --source=none"),
        (("--events-lease=A",), "--events-lease: 'A' is not NAME or NAMESPACE/NAME of a Lease"),
    ],
)
def test_problems(flags, says):
    """One line each."""
    (found,) = problems(*flags)
    assert says in found
