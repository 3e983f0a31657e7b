# stat-interval - memory statistics are folded less often.
name=stat-interval
why="the vmstat worker visits a CPU with dirty counters every ten seconds, not every one"
danger="counters in /proc/vmstat lag; worth little since 3.18 folds on demand"
source="kernel admin-guide/kernel-per-CPU-kthreads; tuned profile network-latency"
since=2.6
needs="an SMP kernel"
takes="int 1 3600"

want() { target /proc/sys/vm/stat_interval "$value"; }
enough() { at_least "$1" "$2"; }
same() { same_number "$1" "$2"; }
