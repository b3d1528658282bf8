"""The daemon: the only place where its objects are put together.

Must not do anything itself that a folder below does.

    clients  the clients of the API server and of kubelets
    status   the facts of the status page
    daemon   start, reload and stop
"""
