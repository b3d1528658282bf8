"""HTTP as a client: connections, TLS, credentials, requests.

Knows how to reach a server, verify its certificate and prove kmproxy's identity to it. Must not
know the meaning of a request: kubelets, the API server and namespaces belong to higher folders.

    addresses    the addresses of a Node that kmproxy may connect to
    tls          the trusted CAs and the client certificate, reloaded when files rotate
    credentials  Authorization headers, from text that rotates
    pins         the first certificate of each kubelet, remembered
    pinning      checks a certificate against its pin
    pin_file     the pins on disk
    connector    connections, to checked addresses and certificates
    protocol     the responses on one connection, one for each request
    failures     the reason of a failed connection, in a line that names the remedy
    resolver     threads that resolve names for some sessions only
    session      the session that all upstreams share
    upstream     requests to one server
    oauth2       tokens from the OAuth 2.0 client credentials grant
    factory      builds an upstream from an HTTP client's section
"""
