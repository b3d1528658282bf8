"""A simulated cluster: an API server and kubelets that answer as real ones do.

Knows only Kubernetes, and the push of Loki. Imports nothing of kmproxy, so it cannot share
kmproxy's mistakes.

    families        the metric families of kubelets
    cadvisor        the texts of a kubelet's metrics endpoints
    state_metrics   the exposition of kube-state-metrics
    wire            HTTP responses, faults and cut connections
    objects         the kinds of objects, and nodes as documents
    protobuf        the part of Kubernetes' protobuf that `kubectl create namespace` uses
    pods            the pods of a node as documents
    metric_formats  the formats in which a kubelet exposes metrics
    kubelet_faults  the ways in which a kubelet's response can fail
    kubelet_access  who may ask a kubelet, also while the API server is away
    file_server     a file server over a folder, as Go has one
    logs            containers that write log files, and their rotation
    pod_logs        the log of one container, as the API server streams it
    log_writers     applications that write log lines
    loki            a push endpoint for log lines
    kubelet         a kubelet
    rbac            roles and bindings, with default ones of Kubernetes
    statuses        Status objects of requests that fail
    authority       tokens and rights
    store           objects with versions and history
    view            lists and lines of watches, as clients ask for them
    services        services of the cluster, and their endpoints
    answers         documents and faults in responses of the API server
    node_proxy      the node proxy of the API server
    api             an API server
    cluster         starts and stops the whole cluster
"""
