"""The label map: for each namespace, the labels that its samples get. It is kept in memory.

Knows how the metadata of a namespace becomes labels, how old the labels are, and how they
survive a restart. Must not know samples or kubelets.

    rendering       renders the labels of one namespace as bytes, within limits
    label_map       the labels of all namespaces, replaced as a whole
    pods            the labels of the pods of one node
    workloads       the workload of a pod, by its controller
    namespace_info  the labels of all namespaces as metrics of their own, for joins
    namespaces      keeps the label map up to date by list and watch
    snapshot        keeps the label map in a file
    peers           asks the other replicas whether one has newer labels
"""
