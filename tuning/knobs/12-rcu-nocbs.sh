# rcu-nocbs - let threads on housekeeping CPUs do the latency CPUs' RCU work.
name=rcu-nocbs
why="RCU callbacks move from softirqs on latency CPUs to rcuo threads, which knob kthreads then pins to housekeeping"
danger="the rcuo threads need CPU time: with one housekeeping CPU and a busy network it fills up"
source="kernel timers/no_hz; admin-guide/kernel-per-CPU-kthreads"
since=3.8
needs="a kernel built with RCU_NOCB_CPU"
takes="words yes"
lasts=boot

want() {
    need_latency || return
    # Where the kernel's own configuration can be read it says whether this exists; otherwise only a boot can tell.
    local config line
    config=$root/boot/config-$KERNEL
    if [[ -r $config ]]; then
        while IFS= read -r line; do
            [[ $line != "# CONFIG_RCU_NOCB_CPU is not set" ]] || { unsupported "needs $needs"; return; }
        done < "$config"
    fi
    argument rcu_nocbs "$latency"
}

got() { argument_got "$1"; }
same() { cpulist_equal "$1" "$2" 2>/dev/null; }

honoured() {
    local entry
    for entry in "$root"/proc/[0-9]*/comm; do
        slurp "${entry#"$root"}" && [[ $REPLY == rcuo* ]] && return
    done
    unsupported "on the kernel line, but there is no rcuo thread: needs $needs"
    return 1
}
