"""Targets for http_sd_configs: pods and nodes, with the labels of their namespaces.

Knows Prometheus' target documents. Must not know samples.

    documents  pods and nodes as targets
    targets    lists of pods and nodes, each fetched once for all requests
    upstreams  /sd/upstreams
    handler    /sd/pods and /sd/nodes
"""
