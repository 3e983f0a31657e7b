# harmful-boot - kernel arguments that do harm.
name=harmful-boot
why="idle=poll overheats and keeps turbo off; mce=off hides failing hardware until it corrupts an order"
danger="none; the kernel line is only read"
source="kernel admin-guide/kernel-parameters, timers/no_hz"
needs="/proc/cmdline"

want() {
    target /proc/cmdline none
    # A choice, if a poor one, and not this tool's to call wrong.
    [[ ${CMDLINE[mitigations]-} != off ]] ||
        warn "mitigations=off on the kernel line: cheaper system calls, which the hot loops do not make, for open doors between programs"
}

got() {
    local found=""
    slurp "$1" || return
    [[ ${CMDLINE[idle]-} != poll ]] || found+=" idle=poll"
    [[ ${CMDLINE[mce]-} != off ]] || found+=" mce=off"
    REPLY=${found:-none}
    REPLY=${REPLY# }
}

enough() {
    [[ $2 != none ]] || return 0
    warn "on the kernel line: $2: remove it there (why: $why)"
    guard "only the kernel line can change this: remove $2 where it was written, update the boot loader, reboot"
    return 1
}
