# workqueues - the kernel's unbound work runs on housekeeping CPUs.
name=workqueues
why="unbound work items, writeback to disk among them, do not run on latency CPUs"
danger="work for a whole box on few CPUs: disk flushing slows down"
source="kernel core-api/workqueue; tuned profile cpu-partitioning"
since=4.2
needs="/sys/devices/virtual/workqueue"
takes="words housekeeping"

want() {
    need_latency || return
    local file
    cpumask_of "$housekeeping"
    target /sys/devices/virtual/workqueue/cpumask "$REPLY"
    for file in "$root"/sys/devices/virtual/workqueue/*/cpumask; do
        [[ -e $file ]] && target "${file#"$root"}" "$REPLY"
    done
    return 0
}

same() { same_mask "$1" "$2"; }
enough() { mask_within "$1" "$2"; }
