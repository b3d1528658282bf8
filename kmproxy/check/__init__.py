"""`kmproxy check`: what will work in this cluster, and what has to be done.

Knows questions and their answers' meaning. Must not change anything.

    report        what was found, as text or JSON
    observations  examples noted in an exposition
    certificates  the certificate that a server shows
    everybody     what a cluster's roles grant to every caller
    preflight     all questions, in order
"""
