# zone-reclaim - take memory from another node before reclaiming on this one.
name=zone-reclaim
why="older guides set it to 1: allocations then stall to reclaim pages of their own node while others have plenty"
danger="none: 0 is the kernel's own choice since 3.16, for \"major performance degradation\""
source="kernel admin-guide/sysctl/vm; commit 4f9b16a"
needs="a NUMA kernel"
takes="int 0 0"

want() {
    target /proc/sys/vm/zone_reclaim_mode "$value"
    slurp /proc/sys/vm/zone_reclaim_mode || return 0
    [[ $REPLY == 0 ]] || warn "vm.zone_reclaim_mode is $REPLY, which harms: allocations stall. Remove it from sysctl.conf; bind memory to a node instead"
}
