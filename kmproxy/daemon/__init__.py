"""The daemon: the only place where its objects are wired.

Must not do itself any work of a folder below.

    runtime        holds the parameters with which the objects are made
    metrics        makes and registers all own metrics
    clients        opens the clients of the API server and of kubelets
    upstreams      makes the clients and the limits of upstreams
    warnings       logs a warning if a configuration trusts more than it may seem
    label_maps     makes the label maps, their watch, and the readiness
    keepers        keeps pins and the label snapshot on disk
    authorization  makes the authorizer
    pages          makes the handlers of targets and of the info metric
    status         answers requests for the status page, and collects its facts
    process        collects the facts of status pages about the process
    scrapes        makes the metrics port
    ports          opens both ports
    lifecycle      waits for the namespaces, and for the end
    daemon         starts, runs and stops the daemon
    logs           the daemon of `kmproxy logs`, with all its parts
    logs_metrics   the table of own metrics of `kmproxy logs`
"""
