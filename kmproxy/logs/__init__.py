"""Container logs: from a log file to a Loki push endpoint, each line once.

Knows log files, lines, positions and pushes. Must not know scrapes, nor targets of discovery.

    lines           a container, a line of its log, and the mark that acknowledges the line
"""
