# boost - turbo frequencies on, or off for evenness.
name=boost
why="on: a latency core runs as fast as its neighbours' heat allows; off: slower, but every day the same"
danger="on: frequency depends on how many cores are busy and how warm they are"
source="kernel admin-guide/pm/cpufreq, intel_pstate; tuned profile latency-performance"
since=3.7
needs="a cpufreq driver with turbo"
takes="words on off"

want() {
    if [[ -e $root/sys/devices/system/cpu/intel_pstate/no_turbo ]]; then
        case $value in on) value=0 ;; off) value=1 ;; esac
        target /sys/devices/system/cpu/intel_pstate/no_turbo "$value"
    else
        case $value in on) value=1 ;; off) value=0 ;; esac
        target /sys/devices/system/cpu/cpufreq/boost "$value"
    fi
}
