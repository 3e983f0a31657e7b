# energy-bias - Intel's older hint, performance before energy.
name=energy-bias
why="0 tells the package to prefer performance where it weighs the two"
danger="power"
source="kernel admin-guide/pm/intel_epb; tuned profile latency-performance"
since=5.3
needs="an Intel CPU with an energy performance bias"
takes="int 0 15"

want() { each_cpu power/energy_perf_bias "$value"; }
same() { same_number "$1" "$2"; }
