# irqs - move every interrupt that can be moved to housekeeping CPUs.
name=irqs
why="an interrupt on a latency CPU costs microseconds, and its cache lines after that"
danger="one housekeeping CPU may get all of them; interrupts that the kernel manages (nvme queues) stay, and are counted"
source="kernel admin-guide/kernel-per-CPU-kthreads; tuned profile cpu-partitioning"
takes="words housekeeping"
# Interrupts that the kernel manages, or that belong to one CPU, answer so.
immovable="Input/output error|not permitted"

want() {
    need_latency || return
    local entry irq mode managed=0 there=0
    local -A nic=()
    if [[ ${SETTING[nic_irqs]} != keep ]]; then
        nic_irq_numbers
        for irq in $REPLY; do nic[$irq]=1; done
    fi
    # Newer kernels take the write bit from the file of an interrupt that cannot be moved. Root would pass -w all the same.
    while read -r mode entry; do
        irq=${entry%/*}
        irq=${irq##*/}
        [[ -z ${nic[$irq]:-} ]] || continue
        if (( 8#$mode & 0200 )); then
            target "/proc/irq/$irq/smp_affinity_list" "$housekeeping"
            continue
        fi
        managed=$(( managed + 1 ))
        slurp "/proc/irq/$irq/effective_affinity_list" && cpulist_pick in "$REPLY" "$latency" && [[ -n $REPLY ]] && there=$(( there + 1 ))
    done < <(stat -c '%a %n' "$root"/proc/irq/[0-9]*/smp_affinity_list 2>/dev/null)
    (( managed == 0 )) || note "the kernel lets nobody move $managed more, $there of them on latency CPUs; isolcpus=managed_irq (boot) helps for managed ones"
    (( ${#TARGETS[@]} )) || unsupported "no /proc/irq/N/smp_affinity_list here"
}

# A number whose interrupt has gone is nobody's.
got() {
    slurp "$1" && return
    [[ -d $root${1%/*} ]] || return 3
    return 1
}

same() { cpulist_equal "$1" "$2" 2>/dev/null; }
enough() { cpulist_within "$2" "$1" 2>/dev/null; }
