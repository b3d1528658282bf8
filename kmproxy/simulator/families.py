"""The families of a simulated kubelet's metrics endpoints, as tables.

Knows their names, types, help texts and labels, and how each value changes. It is data only. The
comment above each table explains the table, and `cadvisor` reads it. Must not know nodes,
pods, HTTP, or anything of the proxy under test.
"""

from __future__ import annotations

LABELS = ("container", "id", "image", "name", "namespace", "pod")
"""The labels of every row of a control group."""

# Each line is a family: its name (`.` is `container_`), its shape, its value, its help.
# Shape: one of `SHAPES`; `!` means no timestamp.
# Value: `+R` a counter growing by R a second (`s`: in nanosecond steps), `+R:M` a histogram and
# `+R%M` a summary of R observations a second around M seconds, `~B` a gauge around B (`p`: whole
# pages), `=V` a gauge that is always V, `@F` a fact of the control group.
_CADVISOR = """\
cadvisor_version_info !version =1 A metric with a constant '1' value labeled by kernel version, \
OS version, docker version, cadvisor version & cadvisor revision.
.blkio_device_usage_total blkio +2048 Blkio Device bytes usage
.cpu_cfs_burst_periods_total quota +0 Number of periods when burst occurs.
.cpu_cfs_burst_seconds_total quota +0 Total time duration the container has been bursted.
.cpu_cfs_periods_total quota +2 Number of elapsed enforcement period intervals.
.cpu_cfs_throttled_periods_total quota +0.1 Number of throttled period intervals.
.cpu_cfs_throttled_seconds_total quota +0.004s Total time duration the container has been \
throttled.
.cpu_system_seconds_total all +0.007s Cumulative system cpu time consumed in seconds.
.cpu_usage_seconds_total cpu +0.02s Cumulative cpu time consumed in seconds.
.cpu_user_seconds_total all +0.013s Cumulative user cpu time consumed in seconds.
.file_descriptors all ~12 Number of open file descriptors for the container.
.fs_inodes_free fs ~3085509 Number of available Inodes
.fs_inodes_total fs =3.08551e+06 Number of Inodes
.fs_io_current fs =0 Number of I/Os currently in progress
.fs_io_time_seconds_total fs +0 Cumulative count of seconds spent doing I/Os
.fs_io_time_weighted_seconds_total fs +0 Cumulative weighted I/O time in seconds
.fs_limit_bytes fs =2.5276502016e+10 Number of bytes that can be consumed by the container on \
this filesystem.
.fs_read_seconds_total fs +0 Cumulative count of seconds spent reading
.fs_reads_bytes_total disk +512 Cumulative count of bytes read
.fs_reads_merged_total fs +0 Cumulative count of reads merged
.fs_reads_total fsdisk +0.2 Cumulative count of reads completed
.fs_sector_reads_total fs +0 Cumulative count of sector reads completed
.fs_sector_writes_total fs +0 Cumulative count of sector writes completed
.fs_usage_bytes fs ~3e9p Number of bytes that are consumed by the container on this filesystem.
.fs_write_seconds_total fs +0 Cumulative count of seconds spent writing
.fs_writes_bytes_total disk +1024 Cumulative count of bytes written
.fs_writes_merged_total fs +0 Cumulative count of writes merged
.fs_writes_total fsdisk +0.4 Cumulative count of writes completed
.health_state all =-1 The result of the container's health check
.last_seen all @seen Last time a container was seen by the exporter
.memory_cache all ~4e6p Number of bytes of page cache memory.
.memory_failcnt all +0 Number of memory usage hits limits
.memory_failures_total fail +0.3 Cumulative count of memory allocation failures.
.memory_kernel_usage all ~2e5p Size of kernel memory allocated in bytes.
.memory_mapped_file all ~5e5p Size of memory mapped files in bytes.
.memory_max_usage_bytes all =6.7108864e+07 Maximum memory usage recorded in bytes
.memory_rss all ~3e7p Size of RSS in bytes.
.memory_swap all =0 Container swap usage in bytes.
.memory_total_active_file_bytes all ~1e6p Current total active file in bytes.
.memory_total_inactive_file_bytes all ~2e6p Current total inactive file in bytes.
.memory_usage_bytes all ~3.6e7p Current memory usage in bytes, including all memory regardless of \
when it was accessed
.memory_working_set_bytes all ~3.2e7p Current working set in bytes.
.network_receive_bytes_total net +900 Cumulative count of bytes received
.network_receive_errors_total net +0 Cumulative count of errors encountered while receiving
.network_receive_packets_dropped_total net +0 Cumulative count of packets dropped while receiving
.network_receive_packets_total net +3 Cumulative count of packets received
.network_transmit_bytes_total net +700 Cumulative count of bytes transmitted
.network_transmit_errors_total net +0 Cumulative count of errors encountered while transmitting
.network_transmit_packets_dropped_total net +0 Cumulative count of packets dropped while \
transmitting
.network_transmit_packets_total net +2.5 Cumulative count of packets transmitted
.oom_events_total all +0 Count of out of memory events observed for the container
.pressure_cpu_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to CPU congestion.
.pressure_cpu_waiting_seconds_total all +0.0007s Total time duration tasks in the container have \
waited due to CPU congestion.
.pressure_io_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to IO congestion.
.pressure_io_waiting_seconds_total all +0.0007s Total time duration tasks in the container have \
waited due to IO congestion.
.pressure_memory_stalled_seconds_total all +0.0007s Total time duration no tasks in the container \
could make progress due to memory congestion.
.pressure_memory_waiting_seconds_total all +0.0007s Total time duration tasks in the container \
have waited due to memory congestion.
.processes all ~2 Number of processes running inside the container.
.scrape_error !bare =0 1 if there was an error while getting container metrics, 0 otherwise
.sockets all ~4 Number of open sockets for the container.
.spec_cpu_period !all =100000 CPU period of the container.
.spec_cpu_quota !quota @cpu_quota CPU quota of the container.
.spec_cpu_shares !all @cpu_shares CPU share of the container.
.spec_memory_limit_bytes !all @memory_limit Memory limit for the container.
.spec_memory_reservation_limit_bytes !all =0 Memory reservation limit for the container.
.spec_memory_swap_limit_bytes !all @memory_limit Memory swap limit for the container.
.start_time_seconds !all @start Start time of the container since unix epoch in seconds.
.threads all ~9 Number of threads running inside the container
.threads_max all =0 Maximum number of threads allowed inside the container, infinity if value is \
zero
.ulimits_soft ulimit =1.048576e+06 Soft ulimit values for the container root process. Unlimited \
if -1, except priority and nice
machine_cpu_books !machine =0 Number of CPU books.
machine_cpu_cores !machine =4 Number of logical CPU cores.
machine_cpu_drawers !machine =0 Number of CPU drawers.
machine_cpu_physical_cores !machine =4 Number of physical CPU cores.
machine_cpu_sockets !machine =1 Number of CPU sockets.
machine_memory_bytes !machine =2.5276502016e+10 Amount of memory installed on the machine.
machine_nvm_avg_power_budget_watts !machine =0 NVM power budget.
machine_nvm_capacity !nvm =0 NVM capacity value labeled by NVM mode (memory mode or app direct \
mode).
machine_scrape_error !bare =0 1 if there was an error while getting machine metrics, 0 otherwise.
machine_swap_bytes !machine =0 Amount of swap memory available on the machine.
"""
_METRICS = """\
go_gc_duration_seconds !bare +0.01%0.0003 A summary of the wall-time pause (stop-the-world) \
duration in garbage collection cycles.
go_goroutines !bare ~180 Number of goroutines that currently exist.
go_info !go =1 Information about the Go environment.
go_threads !bare ~14 Number of OS threads created.
kubelet_container_log_filesystem_used_bytes !log ~40960p [ALPHA] Bytes used by the container's \
logs on the filesystem.
kubelet_metrics_provider !provider =1 [ALPHA] Metrics provider used by kubelet to collect \
container stats. Values can be 'cadvisor' and 'cri'
kubelet_node_name !nodename =1 [ALPHA] The node's name. The count is always 1.
kubelet_pleg_last_seen_seconds !bare @seen [ALPHA] Timestamp in seconds when PLEG was last seen \
active.
kubelet_pleg_relist_duration_seconds !bare +1:0.004 [ALPHA] Duration in seconds for relisting \
pods in PLEG.
kubelet_running_containers !running @containers [ALPHA] Number of containers currently running
kubelet_running_pods !bare @pods [ALPHA] Number of pods that have a running pod sandbox
kubelet_runtime_operations_duration_seconds !runtime +0.5:0.006 [ALPHA] Duration in seconds of \
runtime operations. Broken down by operation type.
kubelet_volume_stats_available_bytes !volume ~7.4e9p [ALPHA] Number of available bytes in the \
volume
kubelet_volume_stats_capacity_bytes !volume =1.0737418240e+10 [ALPHA] Capacity in bytes of the \
volume
kubelet_volume_stats_inodes !volume =655360 [ALPHA] Maximum number of inodes in the volume
kubelet_volume_stats_inodes_free !volume ~640000 [ALPHA] Number of free inodes in the volume
kubelet_volume_stats_inodes_used !volume ~15360 [ALPHA] Number of used inodes in the volume
kubelet_volume_stats_used_bytes !volume ~2.6e9p [ALPHA] Number of used bytes in the volume
process_cpu_seconds_total !bare +0.01s Total user and system CPU time spent in seconds.
process_open_fds !bare ~28 Number of open file descriptors.
process_resident_memory_bytes !bare ~9.9e7p Resident memory size in bytes.
process_start_time_seconds !bare @start Start time of the process since unix epoch in seconds.
rest_client_exec_plugin_ttl_seconds !bare =+Inf [ALPHA] Gauge of the shortest TTL (time-to-live) \
of the client certificate(s) managed by the auth exec plugin. The value is in seconds until \
certificate expiry (negative if already expired). If auth exec plugins are unused or manage no \
TLS certificates, the value will be +INF.
rest_client_requests_total !rest +0.2 [ALPHA] Number of HTTP requests, partitioned by status \
code, method, and host.
workqueue_depth !queue =0 [BETA] Current depth of workqueue
"""
_RESOURCE = """\
.cpu_usage_seconds_total res +0.02s [STABLE] Cumulative cpu time consumed by the container in \
core-seconds
.memory_working_set_bytes res ~3.2e7p [STABLE] Current working set of the container in bytes
.start_time_seconds !res @born [STABLE] Start time of the container since unix epoch in seconds
.swap_limit_bytes res =0 [ALPHA] Current amount of the container swap limit in bytes. Reported \
only on non-windows systems
.swap_usage_bytes res =0 [ALPHA] Current amount of the container swap usage in bytes. Reported \
only on non-windows systems
node_cpu_usage_seconds_total node +0.02s [STABLE] Cumulative cpu time consumed by the node in \
core-seconds
node_memory_working_set_bytes node ~3.2e7p [STABLE] Current working set of the node in bytes
node_swap_usage_bytes node =0 [ALPHA] Current swap usage of the node in bytes. Reported only on \
non-windows systems
pod_cpu_usage_seconds_total respod +0.02s [STABLE] Cumulative cpu time consumed by the pod in \
core-seconds
pod_memory_working_set_bytes respod ~3.2e7p [STABLE] Current working set of the pod in bytes
pod_swap_usage_bytes respod =0 [ALPHA] Current amount of the pod swap usage in bytes. Reported \
only on non-windows systems
resource_scrape_error !bare =0 [STABLE] 1 if there was an error while getting container metrics, \
0 otherwise
"""
_PROBES = """\
prober_probe_duration_seconds !probe +0.1:0.002 [ALPHA] Duration in seconds for a probe response.
prober_probe_total !probed +0.1 [BETA] Cumulative number of a liveness, readiness or startup \
probe for a container by result.
process_start_time_seconds !bare @start [ALPHA] Start time of the process since unix epoch in \
seconds.
"""

# Each line is a shape: its name, the control groups that have a row, the labels of these groups
# that are kept (`*`: the six of `LABELS`, `-`: none), and the labels that are added (one row for
# each combination of their values).
SHAPES = """\
all root+inner *
cpu root+inner * cpu=total
quota limited *
fs host * device=/dev/vda|/run/lock|/sys/fs/cgroup|overlay_0-100|overlay_0-101
fsdisk host * device=/dev/vda|/run/lock|/sys/fs/cgroup|overlay_0-100|overlay_0-101
fsdisk inner * device=/dev/vda
disk root+inner * device=/dev/vda
blkio root+containers * device=/dev/vda major=254 minor=0 operation=Read|Write
fail root+inner * failure_type=pgfault|pgmajfault scope=container|hierarchy
net root+sandboxes * interface=eth0|tunl0
ulimit root+sandboxes+containers * ulimit=max_open_files
version host - cadvisorRevision= cadvisorVersion= dockerVersion= kernelVersion=6.12 osVersion=Linux
machine host - boot_id=1de422c2 machine_id=3d1219c7 system_uuid=3d1219c7
nvm host - boot_id=1de422c2 machine_id=3d1219c7 mode=app_direct_mode|memory_mode \
system_uuid=3d1219c7
bare host -
node root -
nodename host node
provider host - provider=cadvisor
go host - version=go1.26.3
running host - container_state=running
runtime host - operation_type=container_status|exec_sync|image_status
rest host - code=200 host=127.0.0.1:6443 method=GET|PATCH
queue host - name=DynamicServingCertificateController|kubelet_log_rotate_manager
volume claims namespace,persistentvolumeclaim
log containers container,namespace,pod,uid
res containers container,namespace,pod
respod pods namespace,pod
probe containers container,namespace,pod probe_type=Liveness|Readiness
probed containers container,namespace,pod,pod_uid probe_type=Liveness|Readiness result=successful
"""

TABLES = {
    "/metrics/cadvisor": _CADVISOR,
    "/metrics": _METRICS,
    "/metrics/resource": _RESOURCE,
    "/metrics/probes": _PROBES,
}
