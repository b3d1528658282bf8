"""A simulated cluster: an API server and kubelets, as real ones answer.

Knows Kubernetes alone. Imports nothing of kmproxy, so that it cannot share its mistakes.

    families    metrics of kubelets
    cadvisor    /metrics/cadvisor of a node
    wire        HTTP answers, faults and cut connections
    objects     namespaces, nodes and pods as documents
    protobuf    as much of Kubernetes' protobuf as kubectl speaks
    pods        pods of a node
    kubelet     a kubelet
    rbac        roles, with Kubernetes' default ones
    store       objects with versions and history
    view        lists and tables as kubectl asks for them
    services    services of the cluster
    answers     Status documents
    node_proxy  the API server's path to a node
    api         an API server
    cluster     all of it, started and stopped
"""
