# busy-read - reads spin on the network queue.
name=busy-read
why="microseconds of spinning in place of an interrupt; SO_BUSY_POLL on the one socket is better, so this is for programs that do not set it"
danger="every socket of every program spins: power, and CPUs busy for nothing"
source="kernel admin-guide/sysctl/net; tuned profile network-latency"
since=3.11
needs="a kernel with NET_RX_BUSY_POLL"
takes="int 0 1000"

want() { target /proc/sys/net/core/busy_read "$value"; }
same() { same_number "$1" "$2"; }
