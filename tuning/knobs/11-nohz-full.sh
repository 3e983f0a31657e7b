# nohz-full - no timer tick on a latency CPU that runs a single task.
name=nohz-full
why="a thread that is alone on its CPU is not interrupted 100 to 1000 times a second"
danger="system calls and interrupts cost more there; POSIX CPU timers keep the tick on; a gateway that makes many system calls may lose: measure"
source="kernel timers/no_hz; admin-guide/cpu-isolation"
since=3.10
needs="a kernel built with NO_HZ_FULL"
takes="words yes"
lasts=boot

want() {
    need_latency || return
    [[ -e $root/sys/devices/system/cpu/nohz_full ]] || { unsupported "no /sys/devices/system/cpu/nohz_full: needs $needs"; return; }
    argument nohz_full "$latency"
}

got() { argument_got "$1"; }
same() { cpulist_equal "$1" "$2" 2>/dev/null; }

honoured() {
    slurp /sys/devices/system/cpu/nohz_full && cpulist_within "$latency" "$REPLY" && return
    unsupported "on the kernel line, but /sys/devices/system/cpu/nohz_full shows '$REPLY'"
}
