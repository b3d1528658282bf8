"""`kmproxy check`, the preflight: whether kmproxy will work in this cluster, and what is missing.

Knows which checks are made, and the meaning of their results. Must not change anything.

    report        shows the results as text or JSON
    steps         announces a step, bounds its time, and keeps its failure
    permissions   asks which permissions the API server grants to kmproxy
    everybody     finds out what a cluster's roles grant to every caller
    namespaces    lists the namespaces, and counts those without a value for a rule
    observations  collects examples from an exposition
    certificates  examines the certificate that a server shows
    kubelet       tries a node: its certificate, its metrics, its pods
    upstreams     tries each upstream: its certificate, its metrics, its namespace labels
    logs          tries a list of pods and one log, for `kmproxy logs`
    events        tries a list of events and the Lease, for `kmproxy logs --events`
    preflight     runs all checks in order
"""
