"""Who may ask for what: reviews of tokens and access, and tenants.

Knows decisions and how long they hold. Must not know what is served.

    reviewer       reviews asked of the API server, and remembered
    footholds      whether a caller has a right in any namespace
    tenant_filter  the lines of a tenant's namespaces
    tenant         which namespaces a tenant sees
    authorizer     decides whether a caller may have what a request asks for
    middleware     authenticates and authorizes every request before routing
"""
