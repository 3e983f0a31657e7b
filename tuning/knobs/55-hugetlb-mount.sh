# hugetlb-mount - a file system to name huge pages in.
name=hugetlb-mount
why="a ring in reserved huge pages is a file on hugetlbfs, as one in ordinary pages is a file in /dev/shm"
danger="any user may take from the pool, as from /dev/shm (mode 1777)"
source="kernel admin-guide/mm/hugetlbpage"
needs="hugetlbfs, and mount (util-linux)"
takes="path"

want() {
    [[ ${SETTING[hugepages]} != keep ]] || { no_op "no huge pages are asked for (hugepages = keep)"; return; }
    local known="" line
    while IFS= read -r line; do
        [[ $line == *hugetlbfs ]] && known=1
    done 2>/dev/null < "$root/proc/filesystems"
    [[ -n $known ]] || { unsupported "hugetlbfs is not in /proc/filesystems"; return; }
    { tool mount && tool umount; } || guard "needs mount (util-linux)"
    target "folder:$value" present
    target "mount:$value" hugetlbfs
}

got() {
    local where type
    REPLY=absent
    if [[ $1 == folder:* ]]; then
        [[ ! -d $root${1#folder:} ]] || REPLY=present
        return 0
    fi
    while read -r _ where type _; do
        [[ $where == "${1#mount:}" ]] && REPLY=$type
    done 2>/dev/null < "$root/proc/mounts"
    return 0
}

put() {
    if [[ $1 == folder:* ]]; then
        ERROR=$(mkdir "$root${1#folder:}" 2>&1) && return
        ERROR=${ERROR##*: }
        return 1
    fi
    run_tool mount -t hugetlbfs -o pagesize=2M,mode=1777 hugetlbfs "${1#mount:}"
}

restore() {
    case $1 in
        folder:*) ERROR=$(rmdir "$root${1#folder:}" 2>&1) ;;
        *) run_tool umount "${1#mount:}" ;;
    esac
}
