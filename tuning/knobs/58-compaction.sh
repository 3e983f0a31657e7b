# compaction - no compaction ahead of need.
name=compaction
why="kcompactd does not move pages in the background"
danger="memory fragments: reserve huge pages first"
source="kernel admin-guide/sysctl/vm"
since=5.9
needs="a kernel with compaction"
takes="int 0 100"

want() { target /proc/sys/vm/compaction_proactiveness "$value"; }
same() { same_number "$1" "$2"; }
