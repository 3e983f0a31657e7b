# ksm - no merging of equal pages.
name=ksm
why="a merged page is write-protected: the next write to it faults and copies"
danger="0 stops merging, 2 also takes merged pages apart, which needs the memory for it"
source="kernel admin-guide/mm/ksm; tuned profile cpu-partitioning"
needs="a kernel with KSM"
takes="int 0 2"

want() { target /sys/kernel/mm/ksm/run "$value"; }
same() { same_number "$1" "$2"; }
enough() { same "$1" "$2" || [[ $1$2 == 02 ]]; }
