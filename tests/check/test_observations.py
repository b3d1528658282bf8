"""The preflight's notes about an exposition, fed whole and in pieces of any size."""

import pytest

from kmproxy.check.observations import LONGEST, Lines, Nameless, Provider

SIZES = pytest.mark.parametrize("size", [1, 7, 1 << 20])


def fed(observer, text, size):
    """The observer after a text in pieces."""
    for start in range(0, len(text), size):
        observer.feed(text[start : start + size])
    return observer


@SIZES
def test_samples_without_a_namespace(size):
    """Samples of control groups count. Samples of machines, and blank namespaces, do not."""
    text = b"".join(
        line + b"\n"
        for line in (
            b'# HELP a id="1" is no sample',
            b'a{id="/",namespace=""} 1',
            b'a{id="/k",namespace="n"} 1',
            b'a{id="/k",container="c"} 1',
            b'a{container="c",id="/k"} 1 1795208090500',
            b'a{grid="x",boot_id="y"} 1',
            b'a{name="id=\\"x\\""} 1',
            b"a 1",
            b'a{id="broken',
        )
    )
    assert fed(Nameless(), text, size).count == 2


@SIZES
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'kubelet_metrics_provider{provider="cri"} 1', "cri"),
        (b'kubelet_metrics_provider{provider="cadvisor"} 1', "cadvisor"),
        (b'kubelet_metrics_provider{provider="cri"} 0', None),
        (b'kubelet_metrics_provider_x{else="cri"} 1', None),
        (b"kubelet_metrics_provider 1", None),
        (b'b{provider="cri"} 1', None),
    ],
)
def test_the_provider(line, name, size):
    """The provider that the kubelet names, if it names one."""
    assert fed(Provider(), b"a 1\n" + line + b"\nc 1\n", size).name == name


@SIZES
def test_lines(size):
    """Every finished line as it is. A line that is too long is not held."""
    found = []
    lines, text = Lines(), b"a\n\nbc\nrest"
    for start in range(0, len(text), size):
        found += lines.feed(text[start : start + size])
    assert found == [b"a", b"", b"bc"]
    for _ in range(3):
        assert lines.feed(b"x" * LONGEST) == []
        assert sum(map(len, lines._held)) <= LONGEST
    assert lines.feed(b"\nd\n") == [b"", b"d"]
