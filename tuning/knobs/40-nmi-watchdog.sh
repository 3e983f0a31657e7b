# nmi-watchdog - no hard-lockup detector.
name=nmi-watchdog
why="its counter interrupts every CPU every few seconds, and takes a performance counter"
danger="a kernel that hangs with interrupts off is not reported"
source="kernel admin-guide/sysctl/kernel; tuned profile network-latency"
since=2.6
needs="an x86 kernel with the hard-lockup detector"
takes="int 0 1"

want() { target /proc/sys/kernel/nmi_watchdog "$value"; }
same() { same_number "$1" "$2"; }
