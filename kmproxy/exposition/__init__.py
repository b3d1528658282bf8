"""Prometheus text: takes the bytes of an exposition and returns them with labels added.

Knows the grammar of samples, and the changes to a line. Must not know HTTP, configuration, the
source of the labels or the time: it imports no other part of kmproxy. The time is linear in the
number of bytes, for every input. The memory is bounded in bytes.

    grammar           expressions that read a line, and the parts of a sample
    errors            the errors that end an exposition
    finder            expressions that find samples by the labels that name their namespaces
    splitter          splits plain lines at their namespaces, which is the fast path
    lines             cuts a stream into whole lines, with a limit for the length of a line
    namespace_labels  the labels by which a sample names its namespace
    pods              the look-up of a pod's labels
    remembered        the labels that one exposition has looked up
    base_enricher     the counts of all enrichers
    enricher          adds labels to samples by their label `namespace`
    sample_editor     the exact rule for one sample, with other namespace labels and pods
    general_enricher  adds labels by other namespace labels, and the labels of pods
    selection         which samples are selected
    series            digests of series, and the bound of what is remembered of them
    selector          applies a selection to an exposition
    info_metric       one series for each namespace at the end of an exposition
    engine            chooses the pure or the compiled engine
    compiled          hands lines to the compiled engine
    pipeline          runs the stages of one exposition, in order
    self_test         checks at the start that known samples get the right labels
"""
