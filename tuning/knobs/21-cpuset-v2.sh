# cpuset-v2 - take the latency CPUs out of the scheduler's hands at run time, the cgroup v2 way.
name=cpuset-v2
why="an isolated partition stops load balancing and unbound kernel work on latency CPUs without a reboot; the kernel documents it as the way to do it"
danger="only processes put into /sys/fs/cgroup/tickpath.latency can run there from now on; all others share the housekeeping CPUs"
source="kernel admin-guide/cgroup-v2, admin-guide/cpu-isolation"
since=6.1
needs="cgroup v2 with the cpuset controller, kernel 6.1"
takes="words yes"

GROUP=/sys/fs/cgroup/tickpath.latency

want() {
    need_latency || return
    slurp /sys/fs/cgroup/cgroup.controllers
    [[ " $REPLY " == *" cpuset "* ]] || { unsupported "no cpuset controller at /sys/fs/cgroup: needs $needs"; return; }
    if [[ ! -d $root$GROUP ]] && slurp /sys/devices/system/cpu/isolated && cpulist_within "$latency" "$REPLY"; then
        no_op "isolcpus= has taken CPU $latency out already"
        return
    fi
    target /sys/fs/cgroup/cgroup.subtree_control +cpuset
    target "$GROUP" present
    target "$GROUP/cpuset.cpus" "$latency"
    target "$GROUP/cpuset.cpus.partition" isolated
}

got() {
    case $1 in
        */cgroup.subtree_control)
            slurp "$1" || [[ -e $root$1 ]] || return 2
            if [[ " $REPLY " == *" cpuset "* ]]; then REPLY=+cpuset; else REPLY=-cpuset; fi
            ;;
        "$GROUP")
            if [[ -d $root$1 ]]; then REPLY=present; else REPLY=absent; fi
            ;;
        *.partition)
            # A group that is not there is a partition that nobody made.
            if [[ -e $root$1 ]]; then slurp "$1"; else REPLY=member; fi
            ;;
        *)
            if [[ -e $root$1 ]]; then slurp "$1"; else REPLY=""; fi
            ;;
    esac
}

put() {
    case $2 in
        present) ERROR=$(mkdir "$root$1" 2>&1) && return ;;
        absent) cgroup_remove "$1" && return ;;
        *)
            # What was set in a group leaves with it.
            [[ -d $root${1%/*} ]] || return 0
            write_file "$1" "$2"
            return
            ;;
    esac
    ERROR=${ERROR##*: }
    return 1
}

same() { [[ $1 == "$2" ]] || { [[ $1 =~ ^[0-9] ]] && cpulist_equal "$1" "$2" 2>/dev/null; }; }
