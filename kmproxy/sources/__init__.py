"""The sources of expositions: kubelets, directly or through the node proxy, and other exporters.

Knows URLs, and when a response is complete. Must not know what is done to an exposition.

    answer         the form, the size and the proven end of an answer
    endpoints      the paths that are fetched from a kubelet
    kubelet_trust  how a kubelet's certificate is verified
    log_answer     tells whether an answer can be that of a log file or its folder
    kubelet        fetches from kubelets
    shared_read    one read for several readers: its bytes and its end
    cache          the reads that several scrapes share, with `--share-reads`
    http           fetches from another exporter
    slots          limits the fetches that run at the same time
"""
