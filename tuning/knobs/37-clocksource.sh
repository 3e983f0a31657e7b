# clocksource - the TSC tells the time.
name=clocksource
why="a timestamp is a dozen nanoseconds from the TSC and a microsecond from hpet or acpi_pm"
danger="only a TSC that the kernel itself lists as usable is chosen; none is forced"
source="kernel timers/timekeeping"
needs="a TSC that the kernel trusts"
takes="words tsc"

want() {
    slurp /sys/devices/system/clocksource/clocksource0/available_clocksource
    if [[ -n $REPLY && " $REPLY " != *" tsc "* ]]; then
        refuse "the kernel has ruled the TSC out (it offers: $REPLY); look for 'unstable' in dmesg and update the firmware"
    fi
    target /sys/devices/system/clocksource/clocksource0/current_clocksource tsc
}
