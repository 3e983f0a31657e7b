# coalesce - interrupts of the named interfaces come at once.
name=coalesce
why="the card does not wait for more packets before it speaks up"
danger="an interrupt for every packet: a burst can take a whole CPU"
source="ethtool(8); kernel networking/scaling"
needs="ethtool, and a driver with ethtool -c"
takes="words off | int 0 1000"

want() {
    need_interface || return
    local interface usecs=$value
    [[ $value != off ]] || usecs=0
    for interface in "${INTERFACES[@]}"; do
        ethtool_got "ethtool:$interface:c:adaptive-rx" && target "ethtool:$interface:c:adaptive-rx" off
        ethtool_got "ethtool:$interface:c:rx-usecs" && target "ethtool:$interface:c:rx-usecs" "$usecs"
    done
    return 0
}

got() { ethtool_got "$1"; }
put() { ethtool_put "$1" "$2"; }
