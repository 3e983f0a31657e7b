# flows - the feed's packets go to a queue of your choice, whatever the others hash to.
name=flows
why="the feed has a queue, and so an interrupt and a CPU, for itself; spreading by hash mixes it with everything else"
danger="a rule to the wrong queue takes the feed to a CPU that nobody watches: check ethtool -S; some drivers hold few rules"
source="ethtool(8) -N; kernel networking/scaling (accelerated RFS, ntuple)"
needs="ethtool, and a driver with ntuple filters (ethtool -k: ntuple-filters on)"
takes="flows"

want() {
    need_interface || return
    local interface rule
    local -a rules=()
    IFS=, read -r -a rules <<< "$value"
    for interface in "${INTERFACES[@]}"; do
        for rule in "${rules[@]}"; do target "flow:$interface:$rule" present; done
    done
}

# REPLY is the number of the card's rule that is exactly this one: no other field may be asked for.
flow_number() {      # flow_number INTERFACE PROTOCOL ADDRESS PORT QUEUE
    local line number="" kind="" matches="" IFS=$'\n'
    local -A type=([udp4]="UDP over IPv4" [tcp4]="TCP over IPv4")
    ethtool_say "$1" n || return 2
    for line in $REPLY; do
        line=${line#"${line%%[![:space:]]*}"}
        case $line in
            "Filter: "*) number=${line#"Filter: "} kind="" matches=1 ;;
            "Rule Type: "*) kind=${line#"Rule Type: "} ;;
            "Src IP addr: "*) [[ $line == *"mask: 255.255.255.255" ]] || matches="" ;;
            "Src port: "*) [[ $line == *"mask: 0xffff" ]] || matches="" ;;
            "Dest IP addr: "*) [[ $line == "Dest IP addr: $3 mask: 0.0.0.0" ]] || matches="" ;;
            "Dest port: "*) [[ $line == "Dest port: $4 mask: 0x0" ]] || matches="" ;;
            "TOS: "*) [[ $line == *"mask: 0xff" ]] || matches="" ;;
            "Action: "*)
                if [[ -n $matches && $kind == "${type[$2]}" && $line == "Action: Direct to queue $5" ]]; then
                    REPLY=$number
                    return 0
                fi
                ;;
        esac
    done
    REPLY=""
    return 1
}

got() {
    local interface protocol address port queue
    IFS=: read -r _ interface protocol address port queue <<< "$1"
    flow_number "$interface" "$protocol" "$address" "$port" "$queue"
    case $? in
        0) REPLY=present ;;
        1) REPLY=absent ;;
        *) return 2 ;;
    esac
}

put() {
    local interface protocol address port queue
    IFS=: read -r _ interface protocol address port queue <<< "$1"
    if [[ $2 == present ]]; then
        run_tool ethtool -N "$interface" flow-type "$protocol" dst-ip "$address" dst-port "$port" action "$queue"
    else
        flow_number "$interface" "$protocol" "$address" "$port" "$queue" || { ERROR="the rule is no longer there"; return 1; }
        run_tool ethtool -N "$interface" delete "$REPLY"
    fi
}
