"""Container logs: from a log file to a Loki push endpoint, each line once.

Knows log files, lines, positions and pushes. Must not know scrapes, nor targets of discovery.

    lines           a container, a line of its log, and the mark that acknowledges the line
    streams         the labels, the structured metadata and the tenant of a line
    loki            a push, and the meaning of an answer
    nanoseconds     keeps equal lines of one nanosecond apart
    queues          lines that wait, by container and tenant, and a batch while it is filled
    batches         collects lines into batches, within a bound of memory
    sender          pushes batches, again and again if need be, and acknowledges lines
"""
