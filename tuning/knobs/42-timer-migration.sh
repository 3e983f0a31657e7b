# timer-migration - timers stay on the CPU that armed them.
name=timer-migration
why="a sleeping CPU's timers are not handed to a busy one, which may be yours"
danger="helps only where latency CPUs arm no timers themselves"
source="tuned profile network-latency"
since=2.6
needs="an SMP kernel"
takes="int 0 1"

want() { target /proc/sys/kernel/timer_migration "$value"; }
same() { same_number "$1" "$2"; }
