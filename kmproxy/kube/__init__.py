"""The Kubernetes API: identities, kubeconfigs, lists and watches, nodes, reviews.

Knows the documents of the API server and the rules of client-go. Must not know which labels a
sample gets, or what kmproxy serves.

    identity           the account with which kmproxy asks the API server
    service_account    the identity of a pod, and where an identity is found
    go_yaml            reads YAML as Go programs do
    kubeconfig_format  every key of a kubeconfig
    context_options    a cluster, and a user with its credential, as frozen values
    context_entries    reads the entries of a cluster and of a user
    contexts           merges kubeconfigs, and finds their current context
    exec_plugin        runs the exec plugin of a kubeconfig
    oidc               renews OIDC tokens
    kubeconfig         an identity made from kubeconfigs
    apiserver          sends requests to the API server
    objects            the metadata of an object, and documents that all kinds share
    object_list        reads lists of objects while they arrive
    backoff            delays after which the API server is asked again
    watch              the state of list and watch
    pod_list           reads a kubelet's list of pods while it arrives
    outage             since when the API server has been away
    permissions        the permissions that kmproxy needs
    reviews            documents of token reviews and access reviews
    nodes              finds the addresses of nodes by name
"""
