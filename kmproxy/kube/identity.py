"""The identity: the account with which kmproxy asks the API server.

Must not know which kinds of identity exist, or what is asked with one. No `repr` and no error
shows a credential.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from kmproxy.client.credentials import Credential
from kmproxy.client.tls import Trust

if TYPE_CHECKING:
    from kmproxy.config.proxies import Proxy, Way


class Identity(Credential):
    """The account with which kmproxy asks the API server at `server`.

    `server` is a URL without a slash at its end. `server_name` is the name that the API server's
    certificate must bear, if it is not the host of the URL. `way` says which forward proxy leads to
    the API server, if any. It is None if no setting speaks of a proxy. `headers` are the headers of
    impersonation.
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
        """The CA of the cluster, and the client certificate if the identity has one."""
