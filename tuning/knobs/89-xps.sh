# xps - each latency CPU sends on a queue of its own.
name=xps
why="a CPU that sends orders does not wait for another one's lock on the queue"
danger="CPUs without a queue of their own share what is left"
source="kernel networking/scaling (XPS)"
needs="an interface with several transmit queues"
takes="words spread"

want() {
    need_interface && need_latency || return
    local interface queues queue cpu number mask
    local -a own=()
    for interface in "${INTERFACES[@]}"; do
        queues=("$root/sys/class/net/$interface/queues/tx-"*)
        # The kernel has no answer for a single queue.
        (( ${#queues[@]} > 1 )) || continue
        own=()
        number=0
        cpulist_expand "$latency"
        for cpu in $REPLY; do
            queue=$(( number++ % ${#queues[@]} ))
            own[queue]+=${own[queue]:+,}$cpu
        done
        for queue in "${!own[@]}"; do
            cpumask_of "${own[queue]}"
            target "/sys/class/net/$interface/queues/tx-$queue/xps_cpus" "$REPLY"
        done
    done
    return 0
}

same() { same_mask "$1" "$2"; }
