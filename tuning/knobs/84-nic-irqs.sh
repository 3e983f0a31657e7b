# nic-irqs - the named interfaces' interrupts go to CPUs of your choice.
name=nic-irqs
why="the feed's queue is served on a CPU that you picked, near the feed handler and on the card's node"
danger="on the feed handler's own CPU each packet interrupts it: choose its neighbour, or busy polling"
source="kernel networking/scaling; core-api/irq/irq-affinity"
needs="an interface with interrupts of its own (device/msi_irqs)"
takes="words housekeeping | cpus"
immovable="Input/output error|not permitted"

want() {
    need_interface || return
    local irq cpus=$value
    [[ $value != housekeeping ]] || cpus=$housekeeping
    nic_irq_numbers
    for irq in $REPLY; do target "/proc/irq/$irq/smp_affinity_list" "$cpus"; done
}

got() {
    slurp "$1" && return
    [[ -d $root${1%/*} ]] || return 3
    return 1
}

same() { cpulist_equal "$1" "$2" 2>/dev/null; }
enough() { cpulist_within "$2" "$1" 2>/dev/null; }
