"""Authentication and authorization of callers: reviews of tokens and access, and tenants.

Knows decisions and how long they hold. Must not know the content that is served.

    reviewer       asks the API server for reviews, and remembers their results
    footholds      finds out whether a caller has a right in any namespace
    tenant_filter  selects the lines of a tenant's namespaces
    compiled_filter  selects them by the compiled engine
    tenant         decides which namespaces a tenant sees
    authorizer     decides whether a caller may have what a request asks for
    middleware     authenticates and authorizes every request before routing
"""
