"""The current web config: read again when its file, or a file that it names, changes.

Knows YAML, files and the TLS contexts made from them. Must not know connections or
requests. If a new version is unusable, or would remove a lock (see
`WebConfig.locks`), the previous version stays in use, with a log line and a metric.
No message shows the content of a key or a password file.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from kmproxy.config.sections import ServerConfig
from kmproxy.config.web import (
    REQUIRING,
    VERIFYING,
    Pem,
    PlainText,
    TlsSection,
    WebConfig,
    parse_web_config,
)
from kmproxy.config.yaml_text import RepeatedKeyError, parse_yaml
from kmproxy.digests import digest
from kmproxy.errors import ConfigError
from kmproxy.openssl import VERSIONS, in_memory, trust_authorities
from kmproxy.telemetry import CredentialErrors
from kmproxy.web.expiry import earliest_expiry

LOOK_EVERY = 1.0
"""Seconds at most between a change of a file and its effect on later connections and requests."""

_log = logging.getLogger(__package__)

Source = Callable[[], WebConfig]
"""Reads the configuration. Raises ConfigError or OSError."""


@dataclass(frozen=True, slots=True, eq=False)
class WebState:
    """One complete version of the configuration.

    `admission` is equal for two versions that let the same clients connect. A
    connection that was admitted under another value is not admitted any more.
    """

    config: WebConfig
    context: ssl.SSLContext | None
    admission: bytes = field(repr=False)

    def admits(self, certificate: Any) -> bool:
        """Whether a client's certificate contains an allowed name. True if any name is."""
        tls = self.config.tls
        if tls is None or tls.client_sans is None:
            return True
        names = set()
        for kind, value in (certificate or {}).get("subjectAltName", ()):
            with suppress(ValueError):
                name = str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value
                if kind in {"DNS", "IP Address", "email", "URI"}:
                    names.add(name)
        return bool(names & tls.client_sans)


class WebFileMetrics:
    """Counts failures to read the web config again, and shows when its certificates expire."""

    def __init__(self, registry: CollectorRegistry, errors: CredentialErrors) -> None:
        self.errors = errors
        self.certificate_expiry = Gauge(
            "kmproxy_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file expires, in seconds since 1970: 'serving' is "
            "kmproxy's own certificate, 'client_ca' verifies clients' certificates.",
            ["certificate"],
            registry=registry,
        )


class WebFile:
    """Holds the newest good version of the web config.

    The constructor reads the files for the first time and raises ConfigError if
    they are unusable.
    """

    def __init__(
        self, source: Source, what: str, *, clock: Callable[[], float], metrics: WebFileMetrics
    ) -> None:
        self._source = source
        self._what = what
        self._clock = clock
        self._metrics = metrics
        self._look_at = -math.inf
        self._made_of = b""
        self._failure = ""
        self._state = self._load()

    def __repr__(self) -> str:
        locks = ", ".join(sorted(self._state.config.locks())) or "no locks"
        return f"<WebFile {self._what}, {locks}>"

    def current(self) -> WebState:
        """The version to use now. The files are read at most once in `LOOK_EVERY` seconds."""
        if self._clock() >= self._look_at:
            try:
                self._state = self._load()
            except ConfigError as error:
                self._metrics.errors.count("web_config")
                if str(error) != self._failure:  # one log line for one problem, not one a second
                    self._failure = str(error)
                    lines = "; ".join(error.problems)
                    _log.warning("%s; the last good version stays in use", lines)
        return self._state

    def _load(self) -> WebState:
        """Read the files. Returns a new version, or the one in use if no content has changed."""
        self._look_at = self._clock() + LOOK_EVERY
        try:
            config = self._source()
            contents = _contents(config.tls)
            made_of = digest(repr(config), repr(sorted(config.users.items())), *contents.values())
            if made_of == self._made_of:
                self._failure = ""
                return self._state
            state = self._build(config, contents)
        except ConfigError as error:
            raise ConfigError([f"{self._what}: {line}" for line in error.problems]) from error
        except OSError as error:
            reason = error.strerror or "the file cannot be read"
            raise ConfigError([f"{self._what}: {error.filename}: {reason}"]) from error
        if self._made_of:
            _log.info("%s: a new version is in use", self._what)
        for line in config.warnings:
            _log.warning("%s: %s", self._what, line)
        self._made_of, self._failure = made_of, ""
        return state

    def _build(self, config: WebConfig, contents: Mapping[Pem, bytes]) -> WebState:
        if self._made_of and (lost := self._state.config.locks() - config.locks()):
            # A partly written file may be valid YAML and lack a lock at its end.
            what = ", ".join(sorted(lost))
            raise ConfigError([f"this version lacks {what}: restart kmproxy to apply it"])
        tls = config.tls
        context = server_context(tls, contents) if tls else None
        if tls:
            self._tell_expiry("serving", tls.certificate, contents)
            if tls.client_ca:
                self._tell_expiry("client_ca", tls.client_ca, contents)
        return WebState(config, context, _admission(tls, contents))

    def _tell_expiry(self, which: str, pem: Pem, contents: Mapping[Pem, bytes]) -> None:
        try:
            moment = earliest_expiry(contents[pem])
        except ValueError as error:  # OpenSSL accepts the certificate, so kmproxy uses it
            _log.warning("%s: kmproxy cannot tell when %s expires: %s", self._what, pem.path, error)
            return
        self._metrics.certificate_expiry.labels(which).set(moment)


def find_web_config(
    config: ServerConfig,
    *,
    bearer: bool = False,
    clock: Callable[[], float],
    metrics: WebFileMetrics,
) -> WebFile | None:
    """The web config that the settings name, or None. Raises ConfigError.

    `bearer` is true if scrapers send tokens: a request cannot carry a password, too.
    """
    source: Source
    if path := config.web_config_file:
        source = partial(_read_beside_tokens if bearer else read_web_config, path)
        what = f"--web-config-file {path}"
    elif (directory := config.metrics_cert_path) and config.metrics_secure is not False:
        section = TlsSection(
            Pem(str(Path(directory, config.metrics_cert_name))),
            Pem(str(Path(directory, config.metrics_cert_key))),
        )
        source, what = partial(WebConfig, section), "--metrics-cert-path"
    else:
        return None
    return WebFile(source, what, clock=clock, metrics=metrics)


def _read_beside_tokens(path: str) -> WebConfig:
    config = read_web_config(path)
    if config.users:
        why = "a request has only one Authorization header"
        raise ConfigError([f"basic_auth_users makes no sense beside --authorization: {why}"])
    return config


def read_web_config(path: str) -> WebConfig:
    """The configuration in a YAML file. Raises ConfigError or OSError."""
    import yaml  # noqa: PLC0415 - loaded only if the file is used

    try:
        document = parse_yaml(Path(path).read_text("utf-8"), plain=PlainText)
    except UnicodeDecodeError:
        raise ConfigError(["the file is not text"]) from None
    except RepeatedKeyError as error:
        raise ConfigError([str(error)]) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        # The message has only the place: the text of YAML's error may quote a key or a hash.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError([f"the file is not YAML{where}"]) from None
    if document is None:
        document = {}
    return parse_web_config(document, str(Path(path).parent))


def server_context(tls: TlsSection, contents: Mapping[Pem, bytes]) -> ssl.SSLContext:
    """A new context for a server. Raises ConfigError, which does not show the files' content.

    Each version of the configuration has its own context. So a removed CA is not
    trusted any more, and no TLS session that was admitted under it can be resumed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.minimum]
    context.maximum_version = VERSIONS[tls.maximum]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    if tls.curve:
        context.set_ecdh_curve(tls.curve)
    try:
        with (
            in_memory(contents[tls.certificate]) as certificate,
            in_memory(contents[tls.key]) as key,
        ):
            context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, _EncryptedKeyError) as error:
        raise ConfigError([_pair_problem(tls, error)]) from None
    if tls.client_auth in VERIFYING and tls.client_ca:
        try:
            unread = trust_authorities(context, contents[tls.client_ca])
        except ValueError as error:
            raise ConfigError([f"{tls.client_ca.path or 'client_ca'}: {error}"]) from None
        if unread:
            name = tls.client_ca.path or "client_ca"
            _log.warning("%s: kmproxy cannot read, and leaves out, %s", name, unread)
        required = tls.client_auth == REQUIRING
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


class _EncryptedKeyError(Exception):
    """A key needs a password, and kmproxy has none."""


def _no_password() -> str:
    raise _EncryptedKeyError


def _pair_problem(tls: TlsSection, error: Exception) -> str:
    certificate, key = tls.certificate.path or "cert", tls.key.path or "key"
    if isinstance(error, _EncryptedKeyError):
        return f"{key}: the key is encrypted"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"{key}: the key does not belong to {certificate}"
    return f"{certificate} and {key} are not a certificate and its key"


def _contents(tls: TlsSection | None) -> dict[Pem, bytes]:
    """The current bytes of certificate, key and CA of the configuration. Raises OSError."""
    named = [pem for pem in (tls.certificate, tls.key, tls.client_ca) if pem] if tls else []
    return {
        pem: Path(pem.path).read_bytes() if pem.path else (pem.text or "").encode() for pem in named
    }


def _admission(tls: TlsSection | None, contents: Mapping[Pem, bytes]) -> bytes:
    if tls is None:
        return b""
    ca = contents[tls.client_ca] if tls.client_ca else b""
    sans = "all" if tls.client_sans is None else repr(sorted(tls.client_sans))
    return digest(tls.client_auth, sans, ca)
