"""Prometheus text: bytes in, the same bytes with labels out.

Knows the grammar of samples, and what is done to a line. Must not know HTTP, configuration,
where labels come from or what time it is: it imports nothing of ours. Time is linear in the
bytes, whatever they are, and memory is bounded in bytes.

    grammar      expressions that read a line, and the parts of a sample
    lines        a stream cut into whole lines, with a limit for one
    enricher     labels of namespaces put on samples
    selection    which samples pass, by metric, namespace and label
    pipeline     the stages of one exposition, in order
    self_test    whether this Python reads the expressions as they are written
"""
