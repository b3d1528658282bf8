"""Container logs: from a log file to a Loki push endpoint, each line once.

Knows log files, lines, positions and pushes. Must not know scrapes, nor targets of discovery.

    lines           a container, a line of its log, and the mark that acknowledges the line
    positions       where the reading of each container's log goes on, and their text form
    position_file   the positions on disk
    open_lines      bounds the memory for lines that have begun and not ended yet
    cri             reads the lines of a CRI log file and joins their parts
    listing         the names of log files in the index of a folder
    unpacking       unpacks a compressed log file piece by piece
    pace            decides when a log file is asked for next
    restarts        the instances of a container, as the pod's status tells of them
    looks           the looks at an instance's newest file, and when its end is believed
    exchange        the requests of a log reader and their answers
    progress        the lines that were given out, and the position of the acknowledged ones
    cursor          the place that reading has reached in a container's log
    reader          reads one container's log over rotations and restarts
    pods            the containers whose logs are read, by a list of pods
    pod_labels      the labels of these pods, from the same lists
    files           polls a kubelet for its pods and log files
    source          what is alike for the sources of logs: what they show and count
    api_text        reads the text of the API server's pods/log
    api_reader      reads one container's log from the API server
    api_pods        lists and watches the pods whose logs the API server is asked for
    api             follows logs through the API server
    streams         the labels, the structured metadata and the tenant of a line
    loki            a push, and the meaning of an answer
    nanoseconds     keeps equal lines of one nanosecond apart
    queues          lines that wait, by container and tenant, and a batch while it is filled
    batches         collects lines into batches, within a bound of memory
    sender          pushes batches, again and again if need be, and acknowledges lines
    page            the status page, and the targets as JSON
    event_text      reads a Kubernetes event, and makes the text of its line
    event_progress  the lines of events that were given out, and the acknowledged position
    event_watch     list and watch of events: requests, bytes, and what follows
    events          reads events, and hands them on as lines
    event_shipper   sends events from the one process that holds the Lease
    shipper         puts reading, sending and positions together, and stops them in order
    port            serves the status page and /targets
"""
