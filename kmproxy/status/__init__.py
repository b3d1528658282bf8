"""The status page: how scrapes went, who owns which namespace, and how kmproxy is set up.

Knows what a person wants to see first, as data, as HTML and as JSON. Must not know how a scrape is
answered or how labels are kept up to date. The facts are collected by the daemons.

    outcomes           remembers how the last scrapes of each path and node went
    namespaces         finds and sorts namespaces by their owners
    seen               finds the namespaces that a tenant sees
    settings           lists the effective settings, without secrets
    model              the facts of the page: the same for HTML and JSON
    words              ages, sizes and shares as a person reads them
    markup             builds HTML that is escaped
    tables             makes tables, tiles and marks
    document           the frame of every page, and its Content-Security-Policy
    scrape_section     makes the sections of scrapes
    namespace_section  makes the section of namespaces
    process_section    makes the parts about certificates, settings and version
    page               makes the page of the daemon
    query              reads the query of the page
    responses          chooses between HTML and JSON, and sets the headers
"""
