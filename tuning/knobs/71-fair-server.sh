# fair-server - no reserved time for ordinary tasks beside real-time ones, on latency CPUs.
name=fair-server
why="since 6.12 a deadline server, not throttling, gives starved ordinary tasks 50 ms a second, and the tick comes back with it"
danger="as rt-runtime = -1: whatever else is bound to that CPU never runs again"
source="kernel 6.12 release (5f6bd38); debugfs sched/fair_server"
since=6.12
needs="kernel 6.12 and debugfs mounted"
takes="words off"
tier=dangerous

want() {
    need_latency || return
    local cpu
    cpulist_expand "$latency"
    for cpu in $REPLY; do target "/sys/kernel/debug/sched/fair_server/cpu$cpu/runtime" 0; done
}

same() { same_number "$1" "$2"; }
