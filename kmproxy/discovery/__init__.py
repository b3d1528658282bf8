"""Targets for http_sd_configs: pods and nodes, with the labels of their namespaces.

Knows Prometheus' target documents. Must not know samples.

    fitting        keeps as many items as fit into a number of bytes
    target_labels  the labels that objects and namespaces give to targets
    documents      the JSON document of pods' targets
    pods           makes targets of a kubelet's list of pods
    nodes          nodes as targets, and their document
    targets        lists of pods and nodes, each fetched once for all requests
    upstreams      /sd/upstreams
    handler        /sd/pods and /sd/nodes
"""
