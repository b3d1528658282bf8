"""`kmproxy check`, the preflight: whether kmproxy will work in this cluster, and what is missing.

Knows which checks are made, and the meaning of their results. Must not change anything.

    report        shows the results as text or JSON
    observations  collects examples from an exposition
    certificates  examines the certificate that a server shows
    everybody     finds out what a cluster's roles grant to every caller
    preflight     runs all checks in order
"""
