# thp - transparent huge pages only for those who ask.
name=thp
why="no page fault clears 2 MiB at once, and khugepaged has little to do; programs that ask with madvise still get them"
danger="programs that lived on unasked huge pages get slower; only mappings made from now on are affected"
source="kernel admin-guide/mm/transhuge; tuned profile network-latency"
needs="a kernel with transparent hugepages"
takes="words madvise never"

want() { target /sys/kernel/mm/transparent_hugepage/enabled "$value"; }
# Never is stricter than asked, and somebody chose it.
enough() { [[ $2 == "$1" || $2 == never ]]; }
