# hugepages - reserve 2 MiB pages on each NUMA node.
name=hugepages
why="rings and books in huge pages cost few TLB entries, and a reserved page cannot be taken away"
danger="the memory is gone for everything else; a process that uses more than there is gets SIGBUS. The kernel may grant fewer: reserve early"
source="kernel admin-guide/mm/hugetlbpage"
needs="a CPU with 2 MiB pages"
takes="int 0 1048576 | pernode"

want() {
    local node pages part nodes=0
    local -a parts=()
    if [[ $value == *:* ]]; then
        IFS=, read -r -a parts <<< "$value"
        for part in "${parts[@]}"; do
            target "/sys/devices/system/node/node${part%:*}/hugepages/hugepages-2048kB/nr_hugepages" "${part#*:}"
        done
        return
    fi
    for node in "$root"/sys/devices/system/node/node[0-9]*; do
        pages=$node/hugepages/hugepages-2048kB/nr_hugepages
        [[ -e $pages ]] && target "${pages#"$root"}" "$value" && nodes=1
    done
    (( nodes )) || target /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages "$value"
}

same() { same_number "$1" "$2"; }
enough() { at_least "$1" "$2"; }
# Granted fewer than asked for, they are still what we asked for.
still_ours() { at_least "$1" "$2" && at_least "$3" "$1"; }
