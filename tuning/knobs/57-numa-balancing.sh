# numa-balancing - no automatic page moving between nodes.
name=numa-balancing
why="to learn who uses a page the kernel unmaps it, and the hot path takes the fault"
danger="bind memory yourself, on the network card's node"
source="kernel admin-guide/sysctl/kernel; tuned profile network-latency"
since=3.13
needs="a kernel with NUMA balancing"
takes="int 0 1"

want() { target /proc/sys/kernel/numa_balancing "$value"; }
same() { same_number "$1" "$2"; }
