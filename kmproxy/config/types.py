"""Parsers and types for the text of a setting: durations, ports, addresses, URLs, secrets.

Each parser takes text and raises ValueError with a reason that can follow the
setting's name. Must not know which settings exist.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
}
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_LONGEST = 2**63 / 1e9  # seconds that fit a Go duration
_RESOURCE = re.compile(
    r"([a-z][a-z0-9-]*)(?:/([a-z][a-z0-9-]*))?(?:\.([a-z0-9][a-z0-9.-]*[a-z0-9]))?"
)
_SCOPE = re.compile(r"[A-Za-z0-9._-]+")  # of a link-local address
_URL_TEXT = re.compile(r"[!-\[\]-~]+")  # printable ASCII without a blank and a backslash
_NUMERIC = re.compile(r"(?:[^.]*\.)*(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")


class Address(NamedTuple):
    """An address to listen on. An empty host means every interface."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Text that is never shown by repr, str or a format."""

    _text: str

    def __repr__(self) -> str:
        return "<secret>"

    def reveal(self) -> str:
        """Returns the text itself, for the one place that sends it."""
        return self._text


@dataclass(frozen=True, slots=True)
class File:
    """A file whose content is the value. It is read again as it rotates."""

    path: str

    def __str__(self) -> str:
        return self.path


Source = Secret | File
"""The origin of a credential's text: the configuration or a file."""


class Resource(NamedTuple):
    """A resource of the API, as RBAC names it. The core group is empty."""

    resource: str
    subresource: str = ""
    group: str = ""

    def __str__(self) -> str:
        subresource = f"/{self.subresource}" if self.subresource else ""
        return f"{self.resource}{subresource}" + (f".{self.group}" if self.group else "")


def parse_bool(text: str) -> bool:
    """Reads a boolean as Go's strconv.ParseBool does."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_duration(text: str) -> float:
    """Reads a duration as Go's time.ParseDuration spells it. Returns seconds, more than 0."""
    seconds, end = 0.0, int(text.startswith("+"))
    while part := _DURATION.match(text, end):
        seconds, end = seconds + float(part[1]) * _UNITS[part[2]], part.end()
    if end != len(text) or not text.strip("+"):
        raise ValueError(f"{text!r} is not a duration such as 30s, 1m30s or 500ms")
    if seconds <= 0:
        raise ValueError(f"{text!r} must be greater than 0s")
    if seconds >= _LONGEST:
        raise ValueError(f"{text[:40]!r} is longer than 292 years")
    return seconds


def duration_up_to(most: float) -> Callable[[str], float]:
    """Returns a parser of durations of at most so many seconds."""

    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if seconds > most:
            raise ValueError(f"{text!r} is more than {most:g}s")
        return seconds

    return parse


def parse_port(text: str) -> int:
    """Reads a TCP port, 1 to 65535."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def parse_count(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse_host(text: str) -> str:
    """Reads a host name, a node name or an IP address. Brackets may enclose an IPv6 address."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    _, percent, scope = host.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        raise ValueError(f"{text!r} is neither a host name nor an IP address")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if host != text or not _HOST_NAME.fullmatch(text):
            raise ValueError(f"{text!r} is neither a host name nor an IP address") from None
        return text


def is_numeric_name(host: str) -> bool:
    """Returns whether the system may read a name as an IPv4 address: 127.1, 2130706433, 0x7f.1."""
    return _NUMERIC.fullmatch(host) is not None


def parse_address(text: str) -> Address:
    """Reads ADDR:PORT. Port 0 asks the system for a free port."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not ADDR:PORT, such as :8080, 127.0.0.1:8080 or [::1]:8080")
    return Address(parse_host(host) if host else "", 0 if port == "0" else parse_port(port))


def parse_peers(text: str) -> Address:
    """Reads HOST:PORT of other processes. Neither part may be empty or 0."""
    address = parse_address(text)
    if not address.host or not address.port:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return address


def parse_server(text: str) -> str:
    """Reads HOST, HOST:PORT or an http(s) URL without a path. Returns the text unchanged."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not text.isascii() or not text.isprintable() or " " in text:
        parts = urlsplit("")  # urlsplit removes some of these characters
    if "@" in text:
        raise ValueError("the address must not contain a user or a password")
    if (
        parts.scheme not in {"https", "http"}
        or not parts.hostname
        or port == 0
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        raise ValueError(f"{text!r} is not HOST, HOST:PORT or https://HOST:PORT")
    parse_host(parts.hostname)
    return text


def parse_path(text: str) -> str:
    """Reads the path of a URL."""
    if not _PATH.fullmatch(text) or "/../" in f"{text}/" or "//" in text:
        raise ValueError(f"{text!r} is not a path such as /metrics/cadvisor")
    return text


def parse_text(text: str) -> str:
    """Reads any text that is not empty."""
    if not text:
        raise ValueError("the value is empty")
    return text


def parse_word(text: str) -> str:
    """Reads text without a blank or a comma. Names have neither: such text is a list by mistake."""
    if "," in text or any(each.isspace() for each in text):
        raise ValueError(f"{text[:80]!r} has a blank or a comma: give each value separately")
    return parse_text(text)


def parse_file(text: str) -> str:
    """Reads the path of a file. The path of a directory, such as `x/`, is refused."""
    if "\0" in text or text.rpartition("/")[2] in {"", ".", ".."}:
        raise ValueError(f"{text!r} is not the path of a file")
    return text


def shown_key(key: object) -> str:
    """Returns a key of a mapping as a problem shows it: at most 60 characters.

    Without a space between them, YAML takes a value as a part of the key. The value
    may be a secret, so the shown key ends before it.
    """
    return re.split("[:=]", str(key), maxsplit=1)[0][:60]


def parse_resource(text: str) -> Resource:
    """Reads RESOURCE[/SUBRESOURCE][.GROUP]. Without a group it belongs to the core group."""
    match = _RESOURCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a resource such as pods/metrics.metrics.k8s.io")
    return Resource(match[1], match[2] or "", match[3] or "")


def tls_version(text: str) -> str:
    """Parses the name of a TLS version, as Go's programs and Prometheus spell it."""
    if text in {"TLS10", "TLS11"}:
        raise ValueError(f"{text} is not secure; the minimum is TLS12")
    return one_of("TLS12", "TLS13")(text)


@dataclass(frozen=True, slots=True)
class OneOf:
    """A parser that accepts one of these words."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Returns the text. Raises ValueError if it is none of the words."""
        if text not in self.words:
            raise ValueError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


def one_of(*words: str) -> OneOf:
    """Returns a parser that accepts one of these words."""
    return OneOf(words)


def parse_http_url(text: str, *, example: str, credentials: str) -> SplitResult:
    """Reads an http or https URL without a user, a password and a fragment.

    Returns it with scheme and host in lower case. Raises ValueError for other values, without the
    value. Its message shows `example`, and `credentials` as the place of a user and a password.
    """
    problem = f"the value is not a URL such as {example}"
    if not _URL_TEXT.fullmatch(text):
        raise ValueError(problem)
    try:
        parts = urlsplit(text)
        port = parts.port
        parse_host(parts.hostname or "")
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme not in {"http", "https"} or port == 0 or "%" in parts.netloc:
        raise ValueError(problem)
    if "@" in parts.netloc:
        raise ValueError(f"the URL must not contain a user or a password: see {credentials}")
    if "#" in text:
        raise ValueError("the URL must not contain a fragment (#)")
    return parts._replace(netloc=parts.netloc.lower())
