"""The proxy for a URL, and the exceptions of NO_PROXY, as in Go."""

from __future__ import annotations

import pytest

from kmproxy.config.proxies import (
    Proxies,
    Proxy,
    from_environment,
    is_excluded,
    parse_proxy,
    way_by_environment,
)
from kmproxy.config.types import Secret


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("https://proxy", "https://proxy:443"),
        ("http://proxy/", "http://proxy:80"),
        ("proxy", "http://proxy:80"),
        ("proxy.example.com:3128", "http://proxy.example.com:3128"),
        ("10.0.0.1:1", "http://10.0.0.1:1"),
        ("http://[fd00::1]:1", "http://[fd00::1]:1"),
    ],
)
def test_a_proxy(text, url):
    """A URL, or HOST or HOST:PORT, which is plain HTTP as in Go."""
    assert parse_proxy(text) == Proxy(url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "socks5://proxy:1080",
        "http://proxy:99999",
        "http://proxy/path",
        "http://proxy?q",
        "http://pro xy",
        "http://proxy\n",
        "http://planted:secret@",
        "http://planted:secret@proxy:x",
    ],
)
def test_no_proxy_at_all(text):
    """An unsupported proxy is refused, and not shown."""
    with pytest.raises(ValueError) as raised:
        parse_proxy(text)
    assert "planted" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_credentials_of_a_proxy():
    """They become a header of the CONNECT. The URL and reprs do not show them."""
    proxy = parse_proxy("http://planted:s%3Acret@proxy:3128")
    assert proxy.url == "http://proxy:3128"
    assert "planted" not in repr(proxy)
    ((name, value),) = proxy.headers
    assert (name, value.reveal()) == ("Proxy-Authorization", "Basic cGxhbnRlZDpzOmNyZXQ=")


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "left_out"),
    [
        ("", "example.com", "443", False),
        ("*", "example.com", "443", True),
        ("x, *", "10.0.0.1", "443", True),
        ("*x", "example.com", "443", False),
        # domains
        ("example.com", "example.com", "443", True),
        ("example.com", "a.example.com", "443", True),
        ("example.com", "anexample.com", "443", False),
        ("example.com", "example.com.org", "443", False),
        (".example.com", "example.com", "443", False),
        (".example.com", "a.b.example.com", "443", True),
        ("*.example.com", "example.com", "443", False),
        ("*.example.com", "a.example.com", "443", True),
        (" EXAMPLE.com ,x", "example.com", "443", True),
        ("example.com:10250", "example.com", "10250", True),
        ("example.com:10250", "a.example.com", "10250", True),
        ("example.com:10250", "example.com", "443", False),
        ("*.example.com:1", "a.example.com", "1", True),
        ("example.com:", "example.com", "443", True),
        (":443", "example.com", "443", False),
        (",,", "example.com", "443", False),
        ("node-1", "node-1", "10250", True),
        ("a:b:c", "a", "10250", False),
        # addresses
        ("10.0.0.1", "10.0.0.1", "10250", True),
        ("10.0.0.1", "10.0.0.10", "10250", False),
        ("10.0.0.1:10250", "10.0.0.1", "10250", True),
        ("10.0.0.1:10251", "10.0.0.1", "10250", False),
        ("fd00::1", "fd00::1", "10250", True),
        ("FD00:0::1", "fd00::1", "10250", True),
        ("[fd00::1]:10250", "fd00::1", "10250", True),
        ("[fd00::1]:1", "fd00::1", "10250", False),
        ("[fd00::1]", "fd00::1", "10250", False),  # as in Go, where it is no entry
        ("::ffff:10.0.0.1", "10.0.0.1", "10250", True),
        ("10.0.0.1", "::ffff:10.0.0.1", "10250", True),
        # networks
        ("10.0.0.0/8", "10.9.8.7", "10250", True),
        ("10.1.2.3/8", "10.9.8.7", "10250", True),
        ("10.0.0.0/8", "11.0.0.1", "10250", False),
        ("10.0.0.0/8", "10.example.com", "10250", False),
        ("10.0.0.0/255.0.0.0", "10.9.8.7", "10250", False),
        ("10.0.0.0/8:10250", "10.9.8.7", "10250", False),
        ("10.0.0.0/99", "10.9.8.7", "10250", False),
        ("fd00::/8", "fd00::7", "10250", True),
        ("fd00::/8", "10.0.0.1", "10250", False),
        ("::ffff:10.0.0.0/104", "10.9.8.7", "10250", True),
        # this host
        ("", "localhost", "443", True),
        ("", "127.0.0.9", "443", True),
        ("", "::1", "443", True),
        ("", "localhost.example.com", "443", False),
    ],
)
def test_who_is_left_out(no_proxy, host, port, left_out):
    """The table of Go's httpproxy: names, addresses and networks, with or without a port."""
    assert is_excluded(no_proxy, host, port) is left_out


@pytest.mark.parametrize(
    ("excluded", "url", "through"),
    [
        (None, "https://10.0.0.1:10250/metrics", True),
        (None, "https://127.0.0.1:10250/metrics", True),
        ("", "https://127.0.0.1:10250/metrics", False),
        ("", "https://[fd00::1]:10250/metrics", True),
        ("fd00::/8", "https://[fd00::1]:10250/metrics", False),
        ("node-a:443", "https://Node-A/metrics", False),
        ("node-a:443", "https://node-a:10250/metrics", True),
    ],
)
def test_the_proxy_of_a_url(excluded, url, through):
    """All URLs but those of a list, which always includes this host."""
    proxy = Proxy("http://proxy:3128")
    assert Proxies(proxy, excluded).find(url) == (proxy if through else None)


@pytest.mark.parametrize(
    ("environment", "url", "excluded"),
    [
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "http://a:1", ""),
        ({"https_proxy": "b"}, "http://b:80", ""),
        ({"HTTPS_PROXY": "", "https_proxy": "b"}, "http://b:80", ""),
        ({"HTTPS_PROXY": "a", "NO_PROXY": "x", "no_proxy": "y"}, "http://a:80", "x"),
        ({"HTTPS_PROXY": "a", "no_proxy": "y"}, "http://a:80", "y"),
    ],
)
def test_the_proxy_of_the_environment(environment, url, excluded):
    """Capitals have precedence, as in Go. The headers of a CONNECT are added."""
    headers = (("X-A", Secret("b")),)
    assert from_environment(environment, headers) == Proxies(Proxy(url, headers), excluded)


@pytest.mark.parametrize("environment", [{}, {"HTTP_PROXY": "http://a:1"}, {"NO_PROXY": "x"}])
def test_an_environment_without_a_proxy(environment):
    """HTTP_PROXY is for plain HTTP, which has no proxy here."""
    assert from_environment(environment) is None


def test_a_bad_proxy_of_the_environment():
    """The error names the variable, and does not show its value."""
    with pytest.raises(ValueError, match="HTTPS_PROXY: ") as raised:
        from_environment({"HTTPS_PROXY": "socks5://planted:secret@a"})
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "environment", "way"),
    [
        ("https://api:6443", {}, "directly"),
        ("https://api:6443", {"HTTPS_PROXY": "p:3128"}, "by the proxy http://p:3128 (HTTPS_PROXY)"),
        ("https://api", {"https_proxy": "http://u:s@p"}, "by the proxy http://p:80 (https_proxy)"),
        ("https://api", {"HTTP_PROXY": "http://p"}, "directly"),
        ("http://api", {"HTTP_PROXY": "http://p"}, "by the proxy http://p:80 (HTTP_PROXY)"),
        ("https://api.x", {"HTTPS_PROXY": "p", "no_proxy": "x"}, "directly (NO_PROXY)"),
        ("https://10.1.2.3", {"HTTPS_PROXY": "p", "NO_PROXY": "10.0.0.0/8"}, "directly (NO_PROXY)"),
        ("https://[fd00::1]:1", {"HTTPS_PROXY": "p", "NO_PROXY": "[fd00::1]:1"}, "directly (NO_PROXY)"),
        ("https://api:6443", {"HTTPS_PROXY": "p", "NO_PROXY": "api:443"}, "by the proxy http://p:80 (HTTPS_PROXY)"),
        ("https://127.0.0.2", {"HTTPS_PROXY": "socks5://p"}, "directly (NO_PROXY)"),
    ],
)  # fmt: skip
def test_the_way_to_a_url(url, environment, way):
    """As in Go: by the scheme's variable, never for this host. No secret is shown."""
    assert str(way_by_environment(environment, url)) == way


def test_a_proxy_that_is_not_supported():
    """It is refused with its variable's name, when it would be used."""
    with pytest.raises(ValueError, match="HTTPS_PROXY: SOCKS is not supported") as raised:
        way_by_environment({"HTTPS_PROXY": "socks5h://u:planted@p"}, "https://api")
    assert "planted" not in str(raised.value)
