"""Whose a sample is: the labels of all namespaces, kept in memory.

Knows how namespaces become labels, how old they are, and how they are kept over a restart.
Must not know samples or kubelets.

    rendering       the labels of one namespace, as bytes, within limits
    label_map       the labels of all namespaces, swapped whole
    namespace_info  the labels of all namespaces as metrics of their own, for joins
    namespaces      the label map kept up to date by list and watch
    snapshot        the label map on disk
    peers           whether another replica has newer labels
"""
