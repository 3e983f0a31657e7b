# wmem-max - how large a send buffer a socket may ask for.
name=wmem-max
why="room for a burst of orders"
danger="bytes that wait in a buffer are orders that are late"
source="kernel admin-guide/sysctl/net"
since=2.6
needs="a kernel with networking"
takes="int 4096 1073741824"

want() { target /proc/sys/net/core/wmem_max "$value"; }
enough() { at_least "$1" "$2"; }
same() { same_number "$1" "$2"; }
