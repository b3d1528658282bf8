"""The Kubernetes API: identities, kubeconfigs, lists and watches, nodes, reviews.

Knows the API server's documents and client-go's rules. Must not know whose a sample is, nor
what is served.

    identity           as whom the API server is asked
    service_account    a pod's identity, and where an identity is found
    go_yaml            YAML as Go programs read it
    kubeconfig_format  every key of a kubeconfig
    contexts           kubeconfigs merged, and the current context
    exec_plugin        a kubeconfig's exec plugin, run
    oidc               OIDC tokens, renewed
    kubeconfig         an identity made of kubeconfigs
    apiserver          requests to the API server
    object_list        lists of objects, read while they come
    watch              list and watch, as a state that is fed
    outage             since when the API server has been away
    permissions        what kmproxy needs to be granted
    reviews            documents of token and access reviews
    nodes              the addresses of nodes, by name
"""
