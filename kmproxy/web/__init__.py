"""HTTP as a server: listeners, connections, answers, TLS and passwords of the web configuration.

Knows bounds of heads, connections and time. Must not know which paths there are, nor
namespaces or kubelets.

    heads             the bytes of a connection as heads of requests
    open_connections  which connections are open, and which is closed first
    responses         plain answers, and their limits
    connection        one client's connection
    listener          a port, and who may connect to it
    expiry            when certificates end
    config_file       the web configuration, followed as it changes
    passwords         passwords compared at equal cost
    middleware        who is let in by the web configuration
    health            /healthz, /readyz and kmproxy's own metrics
"""
