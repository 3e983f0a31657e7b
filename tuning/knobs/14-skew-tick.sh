# skew-tick - the CPUs' ticks do not all fire in the same instant.
name=skew-tick
why="staggered ticks do not fight for the same kernel locks at once"
danger="a little more power, as CPUs wake at different times"
source="tuned profile network-latency"
since=2.6
takes="words yes"
lasts=boot

want() { argument skew_tick 1; }
got() { argument_got "$1"; }
