# compact-unevictable - locked pages are not moved.
name=compact-unevictable
why="compaction would fault a process out of pages that it locked for exactly that reason"
danger="memory fragments: reserve huge pages first"
source="kernel admin-guide/sysctl/vm"
since=4.2
needs="a kernel with compaction"
takes="int 0 1"

want() { target /proc/sys/vm/compact_unevictable_allowed "$value"; }
same() { same_number "$1" "$2"; }
