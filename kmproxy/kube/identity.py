"""As whom the API server is asked.

Must not know which identities there are, nor what is asked as one. No `repr` and
no error shows a credential.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from kmproxy.client.credentials import Credential
from kmproxy.client.tls import Trust

if TYPE_CHECKING:
    from kmproxy.config.proxies import Proxy, Way


class Identity(Credential):
    """As whom the API server at `server` is asked.

    `server` is a URL without a path's slash at its end. `server_name` is what
    its certificate must bear if not the host, `way` which forward proxy leads there,
    None if nothing speaks of any. `headers` are those of impersonation.
    """

    server: str
    server_name: str | None = None
    way: Way | None = None

    @property
    def proxy(self) -> Proxy | None:
        """The forward proxy on the way to the API server."""
        return self.way.proxy if self.way else None

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """The CA of the cluster, and a client certificate if that is what we have."""
