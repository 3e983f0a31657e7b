# dead-sysctls - settings in this machine's sysctl files that the kernel does not have.
name="dead-sysctls"
why="a line for a setting that does not exist is an error that nobody reads at boot, and its author believes it works"
danger="none; the files are only read"
source="kernel admin-guide/sysctl; commit logs of 4.12, 5.13 and 6.6"

DEAD="net.ipv4.tcp_nodelay=never existed: TCP_NODELAY is a socket option, and the gateway sets it
net.ipv4.tcp_tw_recycle=gone since 4.12
kernel.sched_latency_ns=moved to debugfs in 5.13, gone in 6.6
kernel.sched_min_granularity_ns=moved to debugfs in 5.13, renamed base_slice_ns in 6.6
kernel.sched_wakeup_granularity_ns=moved to debugfs in 5.13, gone in 6.6
kernel.sched_migration_cost_ns=moved to debugfs in 5.13"

want() {
    local file line setting dead found=""
    for file in "$root"/etc/sysctl.conf "$root"/etc/sysctl.d/*.conf "$root"/run/sysctl.d/*.conf; do
        [[ -r $file ]] || continue
        while IFS= read -r line || [[ -n $line ]]; do
            [[ $line =~ ^[[:space:]]*-?([a-z0-9_./]+)[[:space:]]*= ]] || continue
            setting=${BASH_REMATCH[1]//\//.}
            while IFS= read -r dead; do
                [[ $setting == "${dead%%=*}" ]] || continue
                [[ -e $root/proc/sys/${setting//.//} ]] && continue
                warn "$setting in ${file#"$root"} does nothing: ${dead#*=}"
                found+="${found:+, }$setting"
            done <<< "$DEAD"
        done < "$file"
    done
    no_op "${found:+found: $found}"
    [[ -n $found ]] || REASON="none found in sysctl.conf and sysctl.d"
}
