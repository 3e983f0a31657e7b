# governor - a fixed high frequency.
name=governor
why="no CPU is caught at a low frequency when the packet comes"
danger="heat and power; firmware may still override it"
source="kernel admin-guide/pm/cpufreq; tuned profile latency-performance"
needs="a cpufreq driver; virtual machines have none, their host decides"
takes="words performance schedutil powersave ondemand"

want() {
    each_cpu cpufreq/scaling_governor "$value"
    slurp "/sys/devices/system/cpu/cpu${housekeeping%%[-,]*}/cpufreq/scaling_available_governors" || return 0
    [[ " $REPLY " == *" $value "* ]] || refuse "the driver offers only: $REPLY"
}
