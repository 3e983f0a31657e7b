# cpuset-v1 - take the latency CPUs out of the scheduler's hands at run time, the cgroup v1 way.
name=cpuset-v1
why="a housekeeping set that is balanced, a latency set that is not, and every process moved into the first: what cset shield does"
danger="every process of the root set moves to the housekeeping CPUs at once; only what is put into tickpath.latency runs on the others"
source="kernel admin-guide/cgroup-v1/cpusets"
since=2.6
needs="cgroup v1 with the cpuset controller at /sys/fs/cgroup/cpuset"
takes="words yes"

SETS=/sys/fs/cgroup/cpuset

want() {
    need_latency || return
    [[ -e $root$SETS/cpuset.cpus ]] || { unsupported "no $SETS/cpuset.cpus: needs $needs"; return; }
    if [[ ! -d $root$SETS/tickpath.latency ]] && slurp /sys/devices/system/cpu/isolated && cpulist_within "$latency" "$REPLY"; then
        no_op "isolcpus= has taken CPU $latency out already"
        return
    fi
    slurp "$SETS/cpuset.mems"
    local mems=$REPLY
    target "$SETS/tickpath.housekeeping" present
    target "$SETS/tickpath.housekeeping/cpuset.cpus" "$housekeeping"
    target "$SETS/tickpath.housekeeping/cpuset.mems" "$mems"
    target "$SETS/tickpath.latency" present
    target "$SETS/tickpath.latency/cpuset.cpus" "$latency"
    target "$SETS/tickpath.latency/cpuset.mems" "$mems"
    target "$SETS/tickpath.latency/cpuset.sched_load_balance" 0
    target "$SETS/cpuset.sched_load_balance" 0
    target "processes:$SETS" housekeeping
}

got() {
    case $1 in
        processes:*)
            root_processes
            if [[ -n $REPLY ]]; then REPLY=root; else REPLY=housekeeping; fi
            ;;
        "$SETS/tickpath.housekeeping" | "$SETS/tickpath.latency")
            if [[ -d $root$1 ]]; then REPLY=present; else REPLY=absent; fi
            ;;
        "$SETS/tickpath."*)
            # In a group that is not there nothing is set, and balancing is on as in every new one.
            if [[ -e $root$1 ]]; then slurp "$1"; elif [[ $1 == *balance ]]; then REPLY=1; else REPLY=""; fi
            ;;
        *) slurp "$1" ;;
    esac
}

# REPLY is the processes still in the root set, without the kernel's own threads: knob kthreads sees to those.
root_processes() {
    local pid stat found=""
    local -a pids=() word=()
    mapfile -t pids 2>/dev/null < "$root$SETS/cgroup.procs"
    for pid in ${pids[@]+"${pids[@]}"}; do
        slurp "/proc/$pid/stat" || continue
        stat=${REPLY##*) }
        read -r -a word <<< "$stat"
        (( word[6] & 0x200000 )) || found+=" $pid"
    done
    REPLY=${found# }
}

put() {
    case $1=$2 in
        processes:*=housekeeping) move_processes; return ;;
        *=present) ERROR=$(mkdir "$root$1" 2>&1) && return ;;
        *=absent) cgroup_remove "$1" && return ;;
        "$SETS/tickpath."*=) return 0 ;;      # Leaves with its group.
        *) write_file "$1" "$2"; return ;;
    esac
    ERROR=${ERROR##*: }
    return 1
}

# What is forked while we look is found by looking again.
move_processes() {
    local pass pid
    for pass in 1 2 3; do
        root_processes
        [[ -n $REPLY ]] || return 0
        for pid in $REPLY; do write_file "$SETS/tickpath.housekeeping/cgroup.procs" "$pid"; done
    done
    return 0
}

restore() {
    local pid
    local -a pids=()
    [[ $1 == processes:* ]] || { put "$1" "$2"; return; }
    mapfile -t pids 2>/dev/null < "$root$SETS/tickpath.housekeeping/cgroup.procs"
    for pid in ${pids[@]+"${pids[@]}"}; do write_file "$SETS/cgroup.procs" "$pid"; done
    return 0
}

# A set's CPUs can be changed but not taken away: they leave with the set. For the processes, back means that the
# housekeeping set is empty, so that it can be removed.
restored() {
    [[ -n $1 ]] || return 0
    [[ $1 == root ]] || { same "$1" "$2"; return; }
    local -a pids=()
    mapfile -t pids 2>/dev/null < "$root$SETS/tickpath.housekeeping/cgroup.procs"
    (( ${#pids[@]} == 0 ))
}

same() { [[ $1 == "$2" ]] || { [[ $1 =~ ^[0-9] ]] && cpulist_equal "$1" "$2" 2>/dev/null; }; }
