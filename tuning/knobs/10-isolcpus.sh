# isolcpus - keep the scheduler and managed interrupts off the latency CPUs from boot on.
name=isolcpus
why="no load balancing onto latency CPUs, and device queues with managed interrupts prefer the others; managed_irq has no form but this"
danger="nothing is balanced there any more: threads that nobody pins pile up on one CPU"
source="kernel admin-guide/cpu-isolation; tuned profile realtime"
since=5.6
needs="/sys/devices/system/cpu/isolated"
takes="words yes"
lasts=boot

want() {
    need_latency || return
    argument isolcpus "managed_irq,domain,$latency"
}

got() { argument_got "$1"; }

# The flags may stand in any order; the CPUs must be the same.
same() {
    local one two
    split_isolcpus "$1" && one=$REPLY && split_isolcpus "$2" && two=$REPLY && [[ $one == "$two" ]]
}

split_isolcpus() {
    local part flags="" cpus=""
    local -a parts=()
    IFS=, read -r -a parts <<< "$1"
    for part in "${parts[@]}"; do
        case $part in
            [0-9]*) cpus+=,$part ;;
            managed_irq) flags+=m ;;
            domain) flags=d$flags ;;
            *) flags+=" $part" ;;
        esac
    done
    # The kernel takes a list without flags to mean domain.
    cpulist_expand "${cpus#,}" && REPLY="${flags:-d}:$REPLY"
}

honoured() {
    slurp /sys/devices/system/cpu/isolated && cpulist_within "$latency" "$REPLY" && return
    unsupported "on the kernel line, but /sys/devices/system/cpu/isolated does not show CPU $latency: the kernel was built without it"
}
