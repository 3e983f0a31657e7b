# khugepaged-defrag - khugepaged does not compact memory.
name=khugepaged-defrag
why="collapsing pages takes the address space's lock and copies 2 MiB under a running process"
danger="fewer huge pages for programs that did not ask"
source="kernel admin-guide/mm/transhuge"
since=2.6
needs="a kernel with transparent hugepages"
takes="int 0 1"

want() { target /sys/kernel/mm/transparent_hugepage/khugepaged/defrag "$value"; }
same() { same_number "$1" "$2"; }
