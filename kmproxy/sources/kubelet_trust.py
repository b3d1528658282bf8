"""The trust in a kubelet: how its certificate is verified, and which client certificate it gets.

Must not know the content of files, nor what is fetched from a kubelet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kmproxy.client.tls import Trust
from kmproxy.config.types import File

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access
    from kmproxy.config.sections import KubeletConfig


def kubelet_trust(config: KubeletConfig, trust: Trust, access: Access | None = None) -> Trust:
    """The trust in a kubelet's serving certificate: the cluster's CA, or as configured.

    `trust` is the trust of the identity. The kubelet gets the client certificate of `trust`,
    unless `access` configures an identity of its own.
    """
    if access is not None:
        tls = access.tls
        trust = replace(trust, ca=tls.ca or trust.ca, minimum=tls.min_version)
        if access.identifies:
            trust = replace(trust, cert=tls.cert, key=tls.key)
    if config.insecure_tls or (access is not None and access.tls.insecure):
        return replace(trust, ca=None, verify=False)
    return replace(trust, ca=File(config.ca_file) if config.ca_file else trust.ca, verify=True)
