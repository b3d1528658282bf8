"""HTTP as a client: connections, TLS, credentials, requests.

Knows how a server is reached, verified and shown who we are. Must not know what is asked for:
kubelets, the API server and namespaces stand above.

    addresses    which addresses of a Node are connected to
    tls          whom we trust and which certificate we show, followed as files rotate
    credentials  Authorization headers, of text that rotates
    pins         the first certificate of each kubelet, remembered
    pinning      how a certificate is judged by its pin
    pin_file     the pins on disk
    connector    connections, to judged addresses and certificates
    upstream     requests to one server, and what its failures are called
    oauth2       tokens by OAuth 2.0 client credentials
    factory      an upstream made of an HTTP client's section
"""
