"""The daemon: the only place where its objects are wired.

Must not do itself any work of a folder below.

    clients  opens the clients of the API server and of kubelets
    status   collects the facts of the status page
    metrics  makes and registers all own metrics
    daemon   starts, runs and stops the daemon
"""
