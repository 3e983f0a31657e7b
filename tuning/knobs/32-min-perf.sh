# min-perf - intel_pstate's floor at its ceiling.
name=min-perf
why="the governor's range has no lower part to fall into"
danger="heat and power"
source="kernel admin-guide/pm/intel_pstate; tuned profile latency-performance"
since=3.9
needs="the intel_pstate driver"
takes="int 0 100"

want() { target /sys/devices/system/cpu/intel_pstate/min_perf_pct "$value"; }
same() { same_number "$1" "$2"; }
