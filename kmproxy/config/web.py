"""Reads the web config, the format that exporters share, from a mapping into frozen sections.

prometheus/exporter-toolkit documents the format in docs/web-configuration.md. Knows every key,
the problems of its values, and OpenSSL's names for Go's names. Must not know files, sockets or
certificates. A setting that kmproxy cannot apply exactly is refused, never served weaker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, Self

from kmproxy.config.types import parse_duration, shown_key, tls_version
from kmproxy.errors import ConfigError

CIPHERS: Final[Mapping[str, str | None]] = {
    "TLS_AES_128_GCM_SHA256": None,
    "TLS_AES_256_GCM_SHA384": None,
    "TLS_CHACHA20_POLY1305_SHA256": None,
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""The cipher suites of Go's `tls.CipherSuites`, each with OpenSSL's name. None stands for a suite
of TLS 1.3. These suites are always on and cannot be chosen, here as in Go."""

CURVES: Final[Mapping[str, str]] = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The response headers that may be set, each with its allowed values; without these, any value."""

VERIFYING: Final = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
REQUIRING: Final = "RequireAndVerifyClientCert"

_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_BCRYPT = re.compile(r"\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class PlainText(str):
    """A scalar without quotes that YAML reads as a number, a boolean or a date: `value`.

    Where text is expected, the scalar's text counts, as when Go decodes into a string.
    """

    __slots__ = ("value",)
    value: Any

    def __new__(cls, text: str, value: Any) -> Self:
        """Makes a scalar of the text in the file and the value that YAML reads from it."""
        plain = super().__new__(cls, text)
        plain.value = value
        return plain


def _typed(value: Any) -> Any:
    return value.value if isinstance(value, PlainText) else value


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate, a key or a CA: in a file, or as text in the configuration."""

    path: str | None = None
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TlsSection:
    """The section `tls_server_config`.

    `ciphers` and `curve` are OpenSSL's names. None means OpenSSL's defaults.
    """

    certificate: Pem
    key: Pem
    client_ca: Pem | None = None
    client_auth: str = "NoClientCert"
    client_sans: frozenset[str] | None = None
    minimum: str = "TLS12"
    maximum: str = "TLS13"
    ciphers: tuple[str, ...] | None = None
    curve: str | None = None
    prefer_server_ciphers: bool = True


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The section `rate_limit`: one request each `interval` seconds, and `burst` at once."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The whole web config. `users` maps a user's name to the bcrypt hash of the password."""

    tls: TlsSection | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    rate_limit: RateLimit | None = None
    warnings: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether every client must authenticate, by password or by certificate."""
        return bool(self.users) or (self.tls is not None and self.tls.client_auth == REQUIRING)

    def locks(self) -> frozenset[str]:
        """Returns the names of the settings that protect the port and are on."""
        tls = self.tls
        on = {
            "basic_auth_users": bool(self.users),
            "tls_server_config": tls is not None,
            "client_auth_type": tls is not None and tls.client_auth in VERIFYING,
            "client_auth_type RequireAndVerifyClientCert": (
                tls is not None and tls.client_auth == REQUIRING
            ),
            "client_allowed_sans": tls is not None and tls.client_sans is not None,
        }
        return frozenset(name for name, locked in on.items() if locked)


def parse_web_config(document: object, directory: str) -> WebConfig:
    """Reads a web config from a YAML document. Its file names are relative to `directory`.

    Raises ConfigError with every problem. No problem shows a key, a hash or text that
    may be one.
    """
    reader = _Reader("", document)
    tls = _tls(reader.section("tls_server_config"), directory)
    headers, warnings = _http(reader.section("http_server_config"))
    users = _users(reader.section("basic_auth_users"))
    limit = _rate_limit(reader.section("rate_limit"))
    reader.finish()
    if reader.problems:
        raise ConfigError(reader.problems)
    return WebConfig(tls, MappingProxyType(users), headers, limit, tuple(warnings))


class _Reader:
    """One mapping of the file. Its values are taken by key; a key left over is a problem.

    A section adds its problems to those of the whole file.
    """

    def __init__(self, name: str, value: object, problems: list[str] | None = None) -> None:
        self.name = name
        self.problems = [] if problems is None else problems
        self.values: dict[Any, Any] = {}
        if isinstance(value, dict):
            self.values = dict(value)
        elif value is not None:
            self.problem("", "a mapping is expected")

    def __bool__(self) -> bool:
        return bool(self.values)

    def problem(self, key: str, reason: str) -> None:
        where = ".".join(part for part in (self.name, key) if part)
        self.problems.append(f"{where}: {reason}" if where else reason)

    def section(self, key: str) -> _Reader:
        return _Reader(key, self.values.pop(key, None), self.problems)

    def text(self, key: str) -> str | None:
        value = self.values.pop(key, None)
        if value is not None and not isinstance(value, str):
            self.problem(key, "text is expected")
            return None
        return str(value) if value else None

    def boolean(self, key: str, *, default: bool) -> bool:
        value = _typed(self.values.pop(key, None))
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, "true or false is expected")
        return bool(value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Takes a list of text. Returns None without the key, and for a wrong value."""
        value = self.values.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problem(key, "a list of text is expected")
            return None
        return tuple(str(item) for item in value)

    def parsed(self, key: str, parse: Callable[[str], float]) -> float | None:
        value = self.values.pop(key, None)
        try:
            return None if value is None else parse(str(value))
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def finish(self) -> None:
        """Reports each key that was not taken as a problem."""
        for key in self.values:
            self.problem("", f"unknown key {shown_key(key)!r}")


def _pem(reader: _Reader, key: str, directory: str) -> Pem | None:
    """Takes the text of `key`, or the file that `key`_file names."""
    text, file = reader.text(key), reader.text(f"{key}_file")
    if text and file:
        reader.problem(key, f"makes no sense beside {key}_file")
    if file:
        return Pem(path=str(PurePath(directory, file)))
    return Pem(text=text) if text else None


def _tls(reader: _Reader, directory: str) -> TlsSection | None:
    if not reader:
        return None
    certificate = _pem(reader, "cert", directory)
    key = _pem(reader, "key", directory)
    client_ca = _pem(reader, "client_ca", directory)
    for name, value in (("cert", certificate), ("key", key)):
        if value is None:
            reader.problem("", f"{name}_file or {name} is missing")
    client_auth = _client_auth(reader, client_ca)
    sans = reader.texts("client_allowed_sans")
    if sans is not None and client_auth != REQUIRING:
        reader.problem("client_allowed_sans", f"needs client_auth_type: {REQUIRING}")
    minimum = _version(reader, "min_version", "TLS12")
    maximum = _version(reader, "max_version", "TLS13")
    ciphers = _ciphers(reader)
    if ciphers == ():  # only suites of TLS 1.3
        minimum = "TLS13"
    if minimum > maximum:
        reader.problem("", "min_version, max_version and cipher_suites leave no version of TLS")
    curve = _curve(reader)
    prefer = reader.boolean("prefer_server_cipher_suites", default=True)
    reader.finish()
    return TlsSection(
        certificate or Pem(),
        key or Pem(),
        client_ca,
        client_auth,
        None if sans is None else frozenset(sans),
        minimum,
        maximum,
        ciphers or None,
        curve,
        prefer,
    )


def _client_auth(reader: _Reader, client_ca: Pem | None) -> str:
    kind = reader.text("client_auth_type") or "NoClientCert"
    if kind in _UNVERIFIED:
        reader.problem(
            "client_auth_type",
            f"{kind} verifies no certificate and is not supported: "
            f"{REQUIRING} verifies certificates, NoClientCert asks for none",
        )
    elif kind not in {"NoClientCert", *VERIFYING}:
        reader.problem("client_auth_type", f"{kind!r} is not one of NoClientCert, {_OR_VERIFYING}")
    elif kind in VERIFYING and client_ca is None:
        reader.problem("", f"client_auth_type {kind} needs client_ca_file")
    elif kind == "NoClientCert" and client_ca is not None:
        reader.problem("", f"client_ca_file has no effect without client_auth_type {_OR_VERIFYING}")
    return kind


_OR_VERIFYING = " or ".join(VERIFYING)


def _version(reader: _Reader, key: str, default: str) -> str:
    try:
        return tls_version(reader.text(key) or default)
    except ValueError as error:
        reader.problem(key, str(error))
        return default


def _ciphers(reader: _Reader) -> tuple[str, ...] | None:
    names = reader.texts("cipher_suites")
    for name in names or ():
        if name not in CIPHERS:
            reader.problem("cipher_suites", f"{name!r} is not a cipher suite of Go's crypto/tls")
    return tuple(own for name in names if (own := CIPHERS.get(name))) if names else None


def _curve(reader: _Reader) -> str | None:
    names = reader.texts("curve_preferences") or ()
    for name in names:
        if name not in CURVES:
            reader.problem("curve_preferences", f"{name!r} is not one of {', '.join(CURVES)}")
    if len(names) > 1:
        reader.problem(
            "curve_preferences", "only one curve is supported: name one, or leave the key out"
        )
    return CURVES.get(names[0]) if names else None


def _http(reader: _Reader) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    headers = _Reader(
        "http_server_config.headers", reader.values.pop("headers", None), reader.problems
    )
    chosen = []
    for name, values in HEADERS.items():
        value = headers.text(name)
        if value is None:
            continue
        if values and value not in values:
            headers.problem(name, f"{value!r} is not {' or '.join(values)}")
        elif not _HEADER_VALUE.fullmatch(value):
            headers.problem(name, "the value is not one line of printable text")
        chosen.append((name, value))
    headers.finish()
    asked = _typed(reader.values.get("http2")) is True
    reader.boolean("http2", default=True)
    reader.finish()
    warnings = ["http_server_config.http2 has no effect: Prometheus scrapes over HTTP/1.1"]
    return tuple(chosen), warnings if asked else []


def _users(reader: _Reader) -> dict[str, str]:
    users = {}
    for number, (name, value) in enumerate(reader.values.items(), 1):
        if not isinstance(name, str) or not name or ":" in name:
            reader.problem("", f"the name of user {number} must be text without a colon")
        elif not isinstance(value, str) or not _BCRYPT.fullmatch(value):
            reader.problem("", f"the password of user {number} is not a bcrypt hash ($2y$10$...)")
        else:
            users[str(name)] = value
    return users


def _rate_limit(reader: _Reader) -> RateLimit | None:
    if not reader:
        return None
    zero = str(reader.values.get("interval")) in {"0", "0s"}
    if zero:
        reader.values.pop("interval")
    interval = reader.parsed("interval", parse_duration)
    burst = _typed(reader.values.pop("burst", 0))
    if not isinstance(burst, int) or isinstance(burst, bool) or burst < 0:
        reader.problem("burst", "a whole number is expected")
        burst = 0
    if interval is not None and burst < 1:
        reader.problem(
            "burst", "the value must be at least 1: with less, kmproxy serves no request"
        )
    reader.finish()
    return None if interval is None else RateLimit(interval, burst)
