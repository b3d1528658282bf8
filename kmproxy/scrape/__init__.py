"""The metrics paths: from a request to the enriched stream.

Knows paths, statuses, deadlines and slots. Must not know targets of discovery.

    routes          maps paths to endpoints of nodes
    source          the sources of scrapes: kubelets' endpoints and upstreams
    stream          enriches an exposition and sends it to the client, piece by piece
    pod_lists       when the pods of a node are listed for the labels of samples
    scraper         handles the deadline, the slot and the statuses of a scrape
    handler         handles paths and queries of the metrics port
    namespace_info  answers /metrics/namespaces
"""
