"""By what a kubelet's certificate is verified, and which certificate it is shown.

Must not know files, nor what is asked of a kubelet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kmproxy.client.tls import Trust
from kmproxy.config.types import File

if TYPE_CHECKING:
    from kmproxy.config.http_client import Access
    from kmproxy.config.sections import KubeletConfig


def kubelet_trust(config: KubeletConfig, trust: Trust, access: Access | None = None) -> Trust:
    """By what a kubelet's serving certificate is verified: the cluster's CA, or as configured.

    `trust` is the identity's. Its client certificate is shown, unless `access` says who we are.
    """
    if access is not None:
        tls = access.tls
        trust = replace(trust, ca=tls.ca or trust.ca, minimum=tls.min_version)
        if access.identifies:
            trust = replace(trust, cert=tls.cert, key=tls.key)
    if config.insecure_tls or (access is not None and access.tls.insecure):
        return replace(trust, ca=None, verify=False)
    return replace(trust, ca=File(config.ca_file) if config.ca_file else trust.ca, verify=True)
