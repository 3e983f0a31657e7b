# resume-latency - keep only the latency CPUs out of deep sleep.
name=resume-latency
why="the same as dma-latency for single CPUs: the others may sleep, and leave more turbo to these"
danger="the numbers mislead: n/a allows no sleep at all, 0 is no limit, others are microseconds"
source="kernel admin-guide/pm/cpuidle (PM QoS); tuned cpu plugin"
since=4.10
needs="cpuN/power/pm_qos_resume_latency_us"
takes="words n/a | int 1 1000"

want() {
    need_latency || return
    local cpu
    cpulist_expand "$latency"
    for cpu in $REPLY; do target "/sys/devices/system/cpu/cpu$cpu/power/pm_qos_resume_latency_us" "$value"; done
}
