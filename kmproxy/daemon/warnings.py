"""Log lines at the start about a configuration that works, but trusts more than it may seem.

Knows which settings let other hosts read metrics or tokens. Must not refuse a configuration.
"""

from __future__ import annotations

import logging

from kmproxy.auth.authorizer import Authorizer
from kmproxy.config.sections import Config
from kmproxy.config.types import Address
from kmproxy.web.config_file import WebFile

_log = logging.getLogger(__package__)


def warn_of_exposure(
    listen: Address,
    authorizer: Authorizer | None,
    web_file: WebFile | None,
    shown: str,
    remedy: str,
) -> None:
    """Log a warning if other hosts may read more from the metrics port than intended.

    `shown` names the content of the port, `remedy` the settings that restrict it.
    """
    if listen.loopback:
        return
    if authorizer is None and not (web_file and web_file.current().config.asks):
        _log.warning(
            "--listen=%s: everybody who reaches this address can read %s, see %s",
            listen,
            shown,
            remedy,
        )
    elif authorizer is not None and not (web_file and web_file.current().config.tls):
        _log.warning(
            "--listen=%s: scrapers send their tokens in plain text, see --web-config-file",
            listen,
        )


def warn_of_certificates(config: Config) -> None:
    """Log a line if kubelets get kmproxy's token without a certificate that a CA verifies."""
    kubelet, access = config.kubelet, config.access
    if kubelet.apiserver or kubelet.scheme == "http":
        return
    if kubelet.insecure_tls or (access is not None and access.tls.insecure):
        by_flag = kubelet.insecure_tls
        _log.warning(
            "%s: any server at a kubelet's address gets the token, which reads the metrics of "
            "every kubelet%s; see --kubelet-tls-pin",
            "--kubelet-insecure-tls" if by_flag else "kubelet.tls_config.insecure_skip_verify",
            ", and with --all-nodes each kubelet reports its own address"
            if kubelet.all_nodes
            else "",
        )
    elif kubelet.tls_pin:
        _log.info(
            "--kubelet-tls-pin: kmproxy accepts a kubelet's first certificate without a CA, so a "
            "server that answers first at its address gets the token; kmproxy refuses any other "
            "certificate later"
        )
