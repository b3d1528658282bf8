"""A simulated kubelet that knows two tokens, and requests to it."""

import ssl

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.wire import HOST

NOW = 1795208090.5
TEXT = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
GOOD = {"Authorization": "Bearer good", "Accept-Encoding": "identity"}


def context(authority, purpose, *, common_name=None):
    """Return a context of either side, with a certificate if it is a server or has a name."""
    made = ssl.SSLContext(purpose)
    authority.configure_trust(made)
    if purpose == ssl.PROTOCOL_TLS_SERVER or common_name:
        authority.issue_cert(HOST, common_name=common_name).configure_cert(made)
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def make(authority, **more):
    """Make a kubelet that knows two tokens; only the user of one may read metrics and pods."""
    return SimKubelet(
        simulate_node("node-a", ["default", "payments"], started=NOW - 3600),
        context(authority, ssl.PROTOCOL_TLS_SERVER),
        authenticate={"good": "prometheus", "weak": "nobody"}.get,
        authorize=lambda user, verb, resource: (
            user in ("prometheus", "by-certificate")
            and (verb, resource) in {("get", "nodes/metrics"), ("get", "nodes/pods")}
        ),
        clock=lambda: NOW,
        **more,
    )


async def fetch(session, url, *, method="GET", **headers):
    """Return status, headers and body of an answer."""
    given = GOOD | {key.replace("_", "-"): value for key, value in headers.items()}
    async with session.request(method, url, headers=given, allow_redirects=False) as answer:
        return answer.status, answer.headers, await answer.read()
