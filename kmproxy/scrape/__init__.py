"""The metrics paths: from a request to the enriched stream.

Knows paths, statuses, deadlines and slots. Must not know targets of discovery.

    routes          which path asks for which endpoint of which node
    stream          an exposition passed on as it comes, enriched
    scraper         the deadline, the slot, the node and the statuses of a scrape
    handler         paths and queries of the metrics port
    namespace_info  /metrics/namespaces
    status_page     the page at /
"""
