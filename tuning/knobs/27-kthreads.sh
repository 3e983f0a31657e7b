# kthreads - kernel threads that may run anywhere run on housekeeping CPUs.
name=kthreads
why="rcuo, kswapd, kcompactd and the like do not borrow a latency CPU"
danger="kswapd of a far NUMA node reclaims from afar when memory runs short"
source="kernel admin-guide/kernel-per-CPU-kthreads; tuned profile cpu-partitioning"
needs="taskset (util-linux)"
takes="words housekeeping"
# Some threads are the CPU's own without being marked so.
immovable="Invalid argument"

want() {
    need_latency || return
    local entry pid stat
    local -a word=()
    tool taskset || { unsupported "needs $needs"; return; }
    for entry in "$root"/proc/[0-9]*/stat; do
        slurp "${entry#"$root"}" || continue
        pid=${REPLY%% *}
        stat=${REPLY##*) }
        read -r -a word <<< "$stat"
        # 0x200000 marks a kernel thread, 0x4000000 one that is bound to its CPU for good.
        (( word[6] & 0x200000 && !(word[6] & 0x4000000) )) && target "thread:$pid:${word[19]}" "$housekeeping"
    done
    (( ${#TARGETS[@]} )) || no_op "no movable kernel threads here, as in a container"
}

# The start time tells a thread from another that got its number later.
got() {
    local pid started line
    local -a word=()
    IFS=: read -r _ pid started <<< "$1"
    slurp "/proc/$pid/stat" || return 3
    read -r -a word <<< "${REPLY##*) }"
    [[ ${word[19]} == "$started" ]] || return 3
    while IFS= read -r line; do
        [[ $line == Cpus_allowed_list:* ]] && REPLY=${line#*:} && REPLY=${REPLY//[[:space:]]/} && return
    done 2>/dev/null < "$root/proc/$pid/status"
    return 3
}

put() {
    local pid
    IFS=: read -r _ pid _ <<< "$1"
    run_tool taskset -cp "$2" "$pid"
}

same() { cpulist_equal "$1" "$2" 2>/dev/null; }
enough() { cpulist_within "$2" "$1" 2>/dev/null; }
