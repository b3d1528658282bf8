"""Parsing of a setting's text, and refused texts."""

import pytest

from kmproxy.config.types import (
    Address,
    Resource,
    one_of,
    parse_address,
    parse_bool,
    parse_count,
    parse_duration,
    parse_file,
    parse_host,
    parse_path,
    parse_port,
    parse_resource,
    parse_server,
    parse_text,
)

LEVEL = one_of("debug", "info")


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true(text):
    """The texts that Go's strconv.ParseBool reads as true."""
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text):
    """The texts that Go's strconv.ParseBool reads as false."""
    assert parse_bool(text) is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1h", 3600.0),
        ("1h15m30.918s", 4530.918),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("0h5s", 5.0),
        ("5s1h", 3605.0),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("7ns", 7e-9),
        ("+5s", 5.0),
    ],
)
def test_duration(text, seconds):
    """A duration is read as Go's time.ParseDuration reads it, to seconds."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("node-1.example.com", "node-1.example.com"),
        ("ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.ec2.internal"),
        ("a", "a"),
        ("under_score", "under_score"),
        ("node.", "node."),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("[fe80::1]", "fe80::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_host(text, host):
    """A host is a name or an IP address, without the brackets of IPv6."""
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        (":8080", "", 8080, ":8080"),
        ("127.0.0.1:9090", "127.0.0.1", 9090, "127.0.0.1:9090"),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("[::]:8080", "::", 8080, "[::]:8080"),
        (":0", "", 0, ":0"),
    ],
)
def test_address(text, host, port, shown):
    """ADDR:PORT is split, and shown as it was given."""
    address = parse_address(text)
    assert address == Address(host, port)
    assert str(address) == shown
    assert parse_address(shown) == address


@pytest.mark.parametrize(
    "text",
    [
        "api.example.com",
        "api.example.com:6443",
        "10.0.0.1",
        "10.0.0.1:443",
        "[::1]:6443",
        "https://api.example.com",
        "https://api.example.com:6443/",
        "http://127.0.0.1:8001",
        "HTTPS://api",
    ],
)
def test_server(text):
    """HOST, HOST:PORT and a URL without a path are returned unchanged."""
    assert parse_server(text) == text


@pytest.mark.parametrize("text", ["/metrics/cadvisor", "/", "/a/", "/a..b", "/.hidden", "/~x-_:@"])
def test_path(text):
    """The path of a URL is returned unchanged."""
    assert parse_path(text) == text


def test_numbers():
    """Ports go from 1 to 65535. Counts have no maximum."""
    assert (parse_port("1"), parse_port("65535")) == (1, 65535)
    assert (parse_count("1"), parse_count("100000")) == (1, 100000)


def test_words():
    """A text is not empty. one_of accepts only its words."""
    assert parse_text(" ") == " "
    assert LEVEL("info") == "info"


@pytest.mark.parametrize("text", ["a", ".a", "...", "./a", "../a", "/a b/\u00e9\n", "//a"])
def test_file(text):
    """The path of a file is returned unchanged."""
    assert parse_file(text) == text


REFUSED = [
    *[(parse_bool, t) for t in ("", "yes", "no", "on", "2", " true", "tRUE", "wahr")],
    *[(parse_duration, t) for t in ("", "30", "s", "1d", "1 s", "30S", "1m30", " 1s", "1s ", ".s")],
    *[(parse_duration, t) for t in ("0", "0s", "-1s", "+", "1e3s", "\u0661s", "inf", "--1s")],
    (parse_duration, "3000000h"),  # more than Go's 64 bits of nanoseconds
    (parse_duration, "9" * 400 + "s"),
    *[(parse_port, t) for t in ("", "0", "65536", "-1", "+80", " 80", "8_0", "http", "1.0", "\u0661")],
    (parse_port, "9" * 5000),
    *[(parse_count, t) for t in ("", "0", "-1", "1.5", "five", "\u00b2")],
    *[(parse_host, t) for t in ("", " ", "a b", "-a", "a-", "a/b", "a:b", "a\n", "n\u00f6de", "a" * 300)],
    *[(parse_host, t) for t in ("[localhost]", "[]", "[::1", "::1]", ":::", "user@host", "::1%a b")],
    *[(parse_address, t) for t in ("", "8080", ":", "localhost", "localhost:", ":99999", ":-1")],
    *[(parse_address, t) for t in ("::1:8080", "[::1]", "[::1]8080", "[]:80", "a b:80", ":00", ":http")],
    *[(parse_server, t) for t in ("", "ftp://h", "h/path", "https://h/api", "h?q", "h#f", "a b", " h")],
    *[(parse_server, t) for t in ("user@h", "u:p@h", "h:0", "h:x", "h:65536", "::1", "[::1", "https://")],
    *[(parse_server, t) for t in ("h\n", "ho\tst", " https://h", "https://h\n")],
    *[(parse_path, t) for t in ("", "metrics", "/a/../b", "/..", "//a", "/a//b", "/a b", "/a?x=1")],
    *[(parse_path, t) for t in ("/a#b", "/%2e%2e", "/a\n", "/a\\b", "http://h/", "/\u00e9")],
    (parse_text, ""),
    *[(parse_file, t) for t in ("", ".", "..", "/", "//", "a/", "a/.", "../..", "/var/lib/", "a\0")],
    *[(parse_resource, t) for t in ("", "*", "Pods", "pods/", "/metrics", "pods/a/b", "pods.", "a b")],
    *[(LEVEL, t) for t in ("", "INFO", "trace", "debug,info")],
]  # fmt: skip


@pytest.mark.parametrize("text", ["https://u:planted@h", "u:planted@h", "https://planted@h:1"])
def test_a_server_with_a_password(text):
    """A server with a password is refused, and not shown."""
    with pytest.raises(ValueError, match="a user or a password") as raised:
        parse_server(text)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pods", ("pods", "", "")),
        ("nodes/metrics", ("nodes", "metrics", "")),
        ("pods.metrics.k8s.io", ("pods", "", "metrics.k8s.io")),
        ("pods/metrics.metrics.k8s.io", ("pods", "metrics", "metrics.k8s.io")),
    ],
)
def test_a_resource(text, parts):
    """Group and resource of RBAC, in one text, and back."""
    assert parse_resource(text) == Resource(*parts)
    assert str(Resource(*parts)) == text


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("example.com", False),
    ],
)
def test_loopback(host, loopback):
    """Only addresses of loopback count. Every interface is more than that."""
    assert Address(host, 80).loopback is loopback


@pytest.mark.parametrize(("parse", "text"), REFUSED)
def test_refused(parse, text):
    """Every other text is a ValueError with a reason of one line."""
    with pytest.raises(ValueError, match=r"\A.+\Z"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (parse_bool, "yes", "'yes' is neither true nor false"),
        (parse_duration, "30", "'30' is not a duration such as 30s, 1m30s or 500ms"),
        (parse_port, "0", "'0' is not a port (1 to 65535)"),
        (parse_address, "8080", "'8080' is not ADDR:PORT, such as :8080, "),
        (LEVEL, "trace", "'trace' is not one of debug, info"),
        (parse_text, "", "the value is empty"),
        (parse_file, "/var/lib/", "'/var/lib/' is not the path of a file"),
    ],
)
def test_a_reason_says_what_would_do(parse, text, reason):
    """The reason shows the given text and the expected form."""
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value).startswith(reason)
