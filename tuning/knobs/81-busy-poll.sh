# busy-poll - poll and select spin on the network queue.
name=busy-poll
why="as busy-read, for poll and select"
danger="every socket of every program spins: power, and CPUs busy for nothing"
source="kernel admin-guide/sysctl/net; tuned profile network-latency"
since=3.11
needs="a kernel with NET_RX_BUSY_POLL"
takes="int 0 1000"

want() { target /proc/sys/net/core/busy_poll "$value"; }
same() { same_number "$1" "$2"; }
