# tsc-reliable - no watchdog over the TSC.
name=tsc-reliable
why="the clocksource watchdog no longer visits every CPU in turn twice a second"
danger="a TSC that really drifts is no longer caught, and every timestamp with it"
source="tuned profile network-latency"
since=2.6
needs="CPU flags constant_tsc and nonstop_tsc"
takes="words yes"
tier=dangerous
lasts=boot

want() {
    tsc_constant || { refuse "the CPU does not promise constant_tsc and nonstop_tsc: its TSC must be watched"; return; }
    argument tsc reliable
}

tsc_constant() {
    local line
    while IFS= read -r line; do
        [[ $line == flags* ]] || continue
        [[ " $line " == *" constant_tsc "* && " $line " == *" nonstop_tsc "* ]]
        return
    done 2>/dev/null < "$root/proc/cpuinfo"
    return 1
}

got() { argument_got "$1"; }
