"""The metrics paths: from a request to the enriched stream.

Knows paths, statuses, deadlines and slots. Must not know targets of discovery.

    routes          which path asks for which endpoint of which node
    handler         requests, statuses and the stream
    namespace_info  /metrics/namespaces
    status_page     the page at /
"""
