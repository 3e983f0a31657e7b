# smt - turn off the second thread of every core.
name=smt
why="nothing can run on a latency core's other thread and take half its execution units"
danger="half of the CPU numbers vanish at once, and whatever was pinned to them is moved; throughput falls"
source="kernel admin-guide/cpu-isolation"
since=4.19
needs="a CPU with two threads to a core, and /sys/devices/system/cpu/smt/control"
takes="words off"

want() {
    slurp /sys/devices/system/cpu/smt/control
    case $REPLY in
        not* | "") unsupported "no second threads to turn off here: needs $needs" ;;
        forceoff) no_op "already off for good, by the kernel line or the firmware" ;;
        *) target /sys/devices/system/cpu/smt/control off ;;
    esac
}
