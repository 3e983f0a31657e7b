# rings - how many packets the named interfaces can hold for the kernel.
name=rings
why="a longer ring survives a longer stall; a short one stays in the cache"
danger="most drivers take the link down for a moment: never while trading"
source="ethtool(8)"
needs="ethtool, and a driver with ethtool -g"
takes="words max | int 1 65536"
tier=dangerous

want() {
    need_interface || return
    local interface
    for interface in "${INTERFACES[@]}"; do
        ethtool_maximum "$interface" g RX || continue
        [[ $value == max ]] || REPLY=$value
        target "ethtool:$interface:g:RX" "$REPLY"
    done
    return 0
}

got() { ethtool_got "$1"; }
put() { ethtool_put "$1" "$2"; }
