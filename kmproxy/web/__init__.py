"""HTTP as a server: listeners, connections, responses, TLS and passwords of the web config.

Knows bounds of heads, connections and time. Must not know the paths of the applications,
namespaces or kubelets.

    heads             splits the bytes of a connection into heads of requests
    open_connections  the open connections of a port, and the order in which they are closed
    responses         plain responses, and the time for a scrape
    connection        one client's connection
    listener          accepts the connections of a port
    expiry            the expiry of certificates
    config_file       the web config, followed as it changes
    passwords         compares passwords at equal cost
    middleware        authentication and rate limit of the web config
    health            /healthz, /readyz and kmproxy's own metrics
"""
