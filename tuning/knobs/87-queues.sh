# queues - how many queues the named interfaces spread packets over.
name=queues
why="fewer queues mean that a feed arrives in one place; more spread the load"
danger="the driver takes the link down and makes its interrupts anew: never while trading. Run tune apply again afterwards"
source="ethtool(8); tuned profile realtime"
needs="ethtool, and a driver with ethtool -l"
takes="int 1 1024"
tier=dangerous

want() {
    need_interface || return
    local interface
    for interface in "${INTERFACES[@]}"; do
        ethtool_maximum "$interface" l Combined || continue
        (( value <= REPLY )) || refuse "$interface has at most $REPLY queues"
        target "ethtool:$interface:l:Combined" "$value"
    done
    return 0
}

got() { ethtool_got "$1"; }
put() { ethtool_put "$1" "$2"; }
