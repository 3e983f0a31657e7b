# swappiness - swap late.
name=swappiness
why="file pages go before program pages when memory runs short"
danger="weaker than mlockall, which the engine does itself"
source="kernel admin-guide/sysctl/vm; tuned profile latency-performance"
since=2.6
needs="a kernel with swap"
takes="int 0 200"

want() { target /proc/sys/vm/swappiness "$value"; }
enough() { at_most "$1" "$2"; }
same() { same_number "$1" "$2"; }
