# rcu-normal - RCU grace periods are not rushed.
name=rcu-normal
why="an expedited grace period interrupts every CPU that runs; a normal one waits for it"
danger="operations that wait for RCU take milliseconds longer"
source="kernel RCU documentation; tuned profile network-latency"
since=4.5
needs="a kernel without CONFIG_TINY_RCU"
takes="int 0 1"

want() { target /sys/kernel/rcu_normal "$value"; }
same() { same_number "$1" "$2"; }
