"""`kmproxy bench`: measurements, printed.

Knows the simulator, and processes of the daemon and of nginx. Must not change what it measures.

    tables     figures as text
    scrapes    the daemon and nginx as processes
    discovery  targets of many pods
    run        the engine, and all of it in order
"""
