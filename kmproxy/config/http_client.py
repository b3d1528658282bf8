"""The keys of an HTTP client in the YAML file: how a server is reached, and with which identity.

Knows the keys of the `kubelet` section, which are also keys of each entry of `upstreams`. They are
those of an HTTP client of Prometheus and Grafana Alloy. Knows which keys exclude one another. Must
not know files or connections. A problem never shows a value that may be secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from kmproxy.config.http_options import (
    Access,
    Authorization,
    BasicAuth,
    OAuth2,
    ProxyOptions,
    TlsOptions,
)
from kmproxy.config.proxies import Headers, Proxies, Proxy, parse_proxy
from kmproxy.config.types import (
    File,
    Secret,
    Source,
    parse_bool,
    parse_host,
    parse_text,
    shown_key,
    tls_version,
)

_TLS: Final = (
    *("ca", "ca_pem", "ca_file", "cert", "cert_pem", "cert_file", "key", "key_pem", "key_file"),
    *("server_name", "min_version", "insecure_skip_verify"),
)
_PROXY: Final = ("proxy_url", "no_proxy", "proxy_from_environment", "proxy_connect_header")
_CREDENTIALS: Final = (
    "authorization", "basic_auth", "bearer_token", "bearer_token_file", "oauth2",
)  # fmt: skip
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": (*_CREDENTIALS, "tls_config", *_PROXY, "http_headers", "follow_redirects"),
    "authorization": ("type", "credentials", "credentials_file"),
    "basic_auth": ("username", "username_file", "password", "password_file"),
    "oauth2": (
        *("client_id", "client_secret", "client_secret_file", "token_url", "scopes"),
        *("endpoint_params", "tls_config", *_PROXY),
    ),
    "tls_config": _TLS,
}
"""The keys of the section and of each block in it."""

_RESERVED = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding",
        "content-length", "content-type", "expect", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "range", "te", "trailer", "transfer-encoding",
        "upgrade", "user-agent", "x-prometheus-scrape-timeout-seconds",
    }
)  # fmt: skip
_RESERVED_OF_CONNECT = _RESERVED - {"proxy-authorization", "user-agent"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # not possible in a file's name, or not encodable

_T = TypeVar("_T")


def read_access(document: Any, path: str, beside: Sequence[str] = ()) -> tuple[Access, list[str]]:
    """Reads the section at `path`. Returns it with a line for each problem and its key's path.

    The keys `beside` may stand in the same mapping. They are not read here.
    """
    problems: list[str] = []
    block = _Block(document, path, (*beside, *KEYS[""]), problems)
    block.at_most_one(_CREDENTIALS)
    access = Access(
        credential=_credential(block),
        tls=_tls(block),
        proxy=_proxy(block),
        headers=block.headers("http_headers", _RESERVED),
        follow_redirects=block.flag("follow_redirects"),
    )
    return access, problems


class _Block:
    """One mapping: its values by key, and the problems with them by path."""

    def __init__(self, document: Any, path: str, known: Sequence[str], problems: list[str]) -> None:
        self._path = path
        self._problems = problems
        self._values: dict[str, Any] = {}
        self._is_one = isinstance(document, Mapping)
        if not self._is_one:
            problems.append(f"{path}: a mapping with these keys is expected: {', '.join(known)}")
            return
        for key, value in document.items():
            if key in known:
                self._values[key] = value
                continue
            nearest = difflib.get_close_matches(shown_key(key), known, 1)
            hint = f", did you mean {path}.{nearest[0]}?" if nearest else ""
            problems.append(f"unknown key {path}.{shown_key(key)}{hint}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def wrong(self, key: str, why: str) -> None:
        self._problems.append(f"{self._path}.{key}: {why}")

    def at_most_one(self, keys: Collection[str]) -> None:
        """Refuses more than one of these keys, all in one line."""
        given = [key for key in keys if key in self]
        if len(given) > 1:
            self._problems.append(f"{self._path}: {' and '.join(given)} exclude each other")

    def required(self, *keys: str) -> None:
        """Refuses a block that has none of these keys."""
        if self._is_one and not any(key in self for key in keys):
            self._problems.append(f"{self._path}: {' or '.join(keys)} is missing")

    def block(self, key: str) -> _Block | None:
        """Returns the mapping that is the value of a key."""
        if key not in self:
            return None
        return _Block(self._values[key], f"{self._path}.{key}", KEYS[key], self._problems)

    def parsed(self, key: str, parse: Callable[[str], _T]) -> _T | None:
        """Returns a text read by `parse`, which raises ValueError with a reason."""
        if key not in self:
            return None
        try:
            return parse(_text(self._values[key]))
        except ValueError as error:
            self.wrong(key, str(error))
            return None

    def flag(self, key: str) -> bool:
        value = self._values.get(key, False)
        if isinstance(value, bool):
            return value
        return bool(self.parsed(key, parse_bool))

    def source(self, *inline: str, file: str, empty: bool = False) -> Source | None:
        """Returns the text under one of the keys `inline`, or the file under `file`."""
        self.at_most_one((*inline, file))
        for key in inline:
            if key in self:
                return self.parsed(key, Secret if empty else _secret)
        return self.parsed(file, lambda text: File(parse_text(text)))

    def pairs(self, key: str, check: Callable[[str, str], str | None]) -> Headers:
        """Reads a mapping of names to one value or a list of values. Checks each value."""
        document = self._values.get(key, {})
        if not isinstance(document, Mapping):
            self.wrong(key, "a mapping from names to values is expected")
            return ()
        read: list[tuple[str, Secret]] = []
        for name, values in document.items():
            for value in values if isinstance(values, list) else [values]:
                try:
                    text = _text(value)
                    problem = check(str(name), text)
                except ValueError as error:
                    problem = str(error)
                if problem:
                    self.wrong(f"{key}.{shown_key(name)}", problem)
                    break
                read.append((str(name), Secret(text)))
        return tuple(read)

    def headers(self, key: str, reserved: Collection[str]) -> Headers:
        """Reads headers. Refuses the reserved ones, which kmproxy sets itself."""

        def check(name: str, value: str) -> str | None:
            if not _TOKEN.fullmatch(name):
                return "the key is not a header name"
            if name.lower() in reserved:
                return "kmproxy sets this header itself"
            if not (value.isascii() and value.isprintable()):
                return "the value of a header must be printable ASCII"
            return None

        return self.pairs(key, check)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        try:
            return tuple(
                parse_text(_text(item)) for item in (value if isinstance(value, list) else [value])
            )
        except ValueError as error:
            self.wrong(key, str(error))
            return ()


def _text(value: Any) -> str:
    """Returns a value that is text.

    Raises ValueError for other values: YAML reads 0123 as 83 and no as false, and the
    user did not mean that.
    """
    if isinstance(value, str):
        if _NO_TEXT.search(value):
            raise ValueError("the value holds a character that is not allowed")
        return value
    raise ValueError(
        "the value is missing" if value is None else "text is expected; put the value in quotes"
    )


def _secret(text: str) -> Secret:
    return Secret(parse_text(text))


def _credential(block: _Block) -> Authorization | BasicAuth | OAuth2 | None:
    """Returns the given credential. Several are a problem, but each of them is checked."""
    found: list[Authorization | BasicAuth | OAuth2 | None] = []
    if (inner := block.block("authorization")) is not None:
        inner.required("credentials", "credentials_file")
        scheme = inner.parsed("type", _scheme) or "Bearer"
        source = inner.source("credentials", file="credentials_file")
        found.append(Authorization(source, "authorization", scheme) if source else None)
    if (inner := block.block("basic_auth")) is not None:
        inner.required("username", "username_file")
        inner.required("password", "password_file")
        user = inner.source("username", file="username_file")
        password = inner.source("password", file="password_file", empty=True)
        found.append(BasicAuth(user, password) if user and password else None)
    if (inner := block.block("oauth2")) is not None:
        found.append(_oauth2(inner))
    for key, kind in (("bearer_token", Secret), ("bearer_token_file", File)):
        if token := block.parsed(key, parse_text):
            found.append(Authorization(kind(token), key))
    return found[0] if found else None


def _scheme(text: str) -> str:
    scheme = text.strip()
    if not _TOKEN.fullmatch(scheme):
        raise ValueError("the value is not the name of a scheme")
    if scheme.lower() == "basic":
        raise ValueError("for Basic, use basic_auth")
    return scheme


def _oauth2(block: _Block) -> OAuth2 | None:
    for key in ("client_id", "token_url"):
        block.required(key)
    block.required("client_secret", "client_secret_file")
    client_id = block.parsed("client_id", parse_text)
    secret = block.source("client_secret", file="client_secret_file")
    url = block.parsed("token_url", _token_url)
    proxy = _proxy(block)
    if url and url.startswith("http:") and (proxy.proxies or proxy.from_environment):
        block.wrong(
            "token_url",
            "write an https URL: through a proxy, kmproxy sends the client secret only over https",
        )
    scopes = block.texts("scopes")
    params = block.pairs("endpoint_params", lambda *_: None)
    tls = _tls(block)
    if client_id is None or secret is None or url is None:
        return None
    return OAuth2(client_id, secret, url, scopes, params, tls, proxy)


def _token_url(text: str) -> str:
    """Reads an https URL, or a plain http URL of this host itself.

    The client secret is sent to this URL. Returns the URL with its scheme in lower
    case. Raises ValueError for other URLs.
    """
    try:
        parts = urlsplit(text)
        host, _ = parse_host(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError("the value is not a URL such as https://login.example.com/token") from None
    if parts.username is not None or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("the value is not a URL such as https://login.example.com/token")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_host(host)):
        return parts.geturl()
    raise ValueError("write an https URL: kmproxy sends the client secret there")


def _is_this_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(outer: _Block) -> TlsOptions:
    block = outer.block("tls_config")
    if block is None:
        return TlsOptions()
    options = TlsOptions(
        ca=block.source("ca", "ca_pem", file="ca_file"),
        cert=block.source("cert", "cert_pem", file="cert_file"),
        key=block.source("key", "key_pem", file="key_file"),
        server_name=block.parsed("server_name", parse_host),
        min_version=block.parsed("min_version", tls_version) or "TLS12",
        insecure=block.flag("insecure_skip_verify"),
    )
    for one, other in (("cert", "key"), ("key", "cert")):
        if any(f"{one}{kind}" in block for kind in _KINDS) and not any(
            f"{other}{kind}" in block for kind in _KINDS
        ):
            block.required(other, f"{other}_pem", f"{other}_file")
    if options.insecure and (options.ca or options.server_name):
        block.wrong("insecure_skip_verify", "the key makes no sense beside a CA or a server_name")
    return options


_KINDS = ("", "_pem", "_file")


def _proxy(block: _Block) -> ProxyOptions:
    from_environment = block.flag("proxy_from_environment")
    headers = block.headers("proxy_connect_header", _RESERVED_OF_CONNECT)
    proxy: Proxy | None = block.parsed("proxy_url", parse_proxy)
    excluded = block.parsed("no_proxy", str)
    for key in ("proxy_url", "no_proxy"):
        if from_environment and key in block:
            block.wrong(key, "the key makes no sense beside proxy_from_environment")
    if "no_proxy" in block and "proxy_url" not in block and not from_environment:
        block.wrong("no_proxy", "the key needs proxy_url")
    if headers and not from_environment and "proxy_url" not in block:
        block.wrong("proxy_connect_header", "the key needs proxy_url")
    if proxy is None:
        return ProxyOptions(None, from_environment, headers)
    if "Proxy-Authorization" in dict(proxy.headers) and any(
        name.lower() == "proxy-authorization" for name, _ in headers
    ):
        block.wrong("proxy_connect_header", "proxy_url has a user and password already")
    return ProxyOptions(Proxies(proxy._replace(headers=proxy.headers + headers), excluded))
