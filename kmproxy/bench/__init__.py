"""`kmproxy bench`: measures kmproxy and prints the figures.

Knows the simulator, and processes of the daemon and of nginx. Must not change the code that it
measures.

    tables     formats the figures as text
    payloads   the texts on which the engine is measured
    scrapes    measures scrapes through the daemon and nginx as processes
    discovery  measures discovery with the targets of many pods
    run        measures the engine, and runs all measurements in order
"""
