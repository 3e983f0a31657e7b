# epp - tell a CPU that chooses its own frequency to choose speed.
name=epp
why="with hardware-managed frequency the preference decides how fast a core comes up; set before the governor, which locks it"
danger="heat and power"
source="kernel admin-guide/pm/intel_pstate, amd-pstate; tuned profile latency-performance"
since=4.10
needs="a CPU with hardware-managed frequency (intel_pstate or amd_pstate in active mode)"
takes="words performance balance_performance"

want() { each_cpu cpufreq/energy_performance_preference "$value"; }
