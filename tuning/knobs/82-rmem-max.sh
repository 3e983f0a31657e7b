# rmem-max - how large a receive buffer a socket may ask for.
name=rmem-max
why="room for a burst of multicast while the feed handler is busy"
danger="a buffer that hides a slow reader hides stale data: watch the drops column of /proc/net/udp"
source="kernel admin-guide/sysctl/net"
since=2.6
needs="a kernel with networking"
takes="int 4096 1073741824"

want() { target /proc/sys/net/core/rmem_max "$value"; }
enough() { at_least "$1" "$2"; }
same() { same_number "$1" "$2"; }
