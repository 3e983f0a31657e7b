# watchdog-cpus - the soft-lockup watchdog looks after housekeeping CPUs only.
name=watchdog-cpus
why="its timer no longer fires on latency CPUs, while hangs on the others are still reported"
danger="a hang on a latency CPU goes unreported by the kernel; the engine's heartbeats show it"
source="kernel admin-guide/lockup-watchdogs, admin-guide/sysctl/kernel"
since=4.2
needs="a kernel with the lockup detector"
takes="words housekeeping"

want() {
    need_latency || return
    target /proc/sys/kernel/watchdog_cpumask "$housekeeping"
}

same() { cpulist_equal "$1" "$2" 2>/dev/null; }
enough() { cpulist_within "$2" "$1" 2>/dev/null; }
