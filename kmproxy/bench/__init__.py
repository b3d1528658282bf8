"""`kmproxy bench`: measures kmproxy and prints the figures.

Knows the simulator, and processes of the daemon and of nginx. Must not change the code that it
measures.

    tables     formats the figures as text
    payloads   makes the expositions that are measured
    engine     measures the engine and its comparisons in this process
    expfmt     measures a Go program that does the engine's work with Prometheus' library
    guard      ends processes if the measuring process is killed
    processes  starts and stops processes, and reads their time and memory
    ways       lists the ways of a scrape that are measured
    servers    starts the daemon and nginx before a simulated cluster
    scrapes    measures scrapes through these servers
    discovery  measures discovery with the targets of many pods
    log_lines  measures log lines on their way to a push
    run        runs all measurements in order
"""
