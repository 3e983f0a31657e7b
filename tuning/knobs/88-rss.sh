# rss - spread received packets over the first queues only.
name=rss
why="packets land only on the queues whose interrupts you placed"
danger="a table that was set by hand cannot be put back exactly, so it is refused"
source="ethtool(8); kernel networking/scaling"
needs="ethtool, and a driver with ethtool -x"
takes="int 1 1024"

want() {
    need_interface || return
    local interface
    for interface in "${INTERFACES[@]}"; do
        got "rss:$interface" || continue
        [[ $REPLY != custom ]] || guard "$interface has a table of its own, which ethtool could not put back: set it to equal first"
        target "rss:$interface" "$value"
    done
    return 0
}

# REPLY is N where the table goes round 0 to N-1, as `equal N` makes it, and custom otherwise.
got() {
    local line entry number=0 queues=0 IFS=$' \t\n'
    local -a table=() entries=()
    ethtool_say "${1#*:}" x || return 2
    while IFS= read -r line; do
        [[ $line =~ ^[[:space:]]*[0-9]+:([[:space:]0-9]+)$ ]] || continue
        read -r -a entries <<< "${BASH_REMATCH[1]}"
        table+=("${entries[@]}")
    done <<< "$REPLY"
    REPLY=""
    (( ${#table[@]} )) || return 2
    for entry in "${table[@]}"; do (( entry < queues )) || queues=$(( entry + 1 )); done
    REPLY=$queues
    for entry in "${table[@]}"; do
        (( entry == number++ % queues )) || REPLY=custom
    done
    return 0
}

put() { run_tool ethtool -X "${1#*:}" equal "$2"; }
