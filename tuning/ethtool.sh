# ethtool.sh - reading and setting one interface's driver through ethtool; for the knobs that need it.
#
# USAGE: sourced by tune, never run. Targets are written ethtool:INTERFACE:OPTION:SETTING, where OPTION is the letter of `ethtool -c`, `-g`, `-l`.
#
# REQUIREMENTS: ethtool, and a driver that answers; without either the knob is unsupported.
#
# LIMITS: ethtool's text is parsed; what is "n/a" or missing there counts as not there.

declare -A ETHTOOL_SAID=()

ethtool_say() {      # ethtool_say INTERFACE OPTION: REPLY is its text, asked for once. 1 where it has none.
    local key=$1:$2
    if [[ -z ${ETHTOOL_SAID[$key]+set} ]]; then
        run_tool ethtool "-$2" "$1" || REPLY=""
        ETHTOOL_SAID[$key]=$REPLY
    fi
    REPLY=${ETHTOOL_SAID[$key]}
    [[ -n $REPLY ]]
}

# REPLY is one setting: of the last line that has it, as rings and queues print their maximum first.
ethtool_got() {
    local interface option setting line found="" IFS=$'\n'
    IFS=: read -r _ interface option setting <<< "$1"
    ethtool_say "$interface" "$option" || return 2
    if [[ $setting == adaptive-rx ]]; then
        [[ $REPLY =~ Adaptive\ RX:\ (on|off) ]] || { REPLY=""; return 2; }
        REPLY=${BASH_REMATCH[1]}
        return 0
    fi
    for line in $REPLY; do
        [[ $line =~ ^$setting:[[:space:]]*([0-9]+)$ ]] && found=${BASH_REMATCH[1]}
    done
    REPLY=$found
    [[ -n $found ]] || return 2
}

ethtool_maximum() {  # ethtool_maximum INTERFACE OPTION SETTING: REPLY is the first, which is the driver's limit.
    local line IFS=$'\n'
    ethtool_say "$1" "$2" || return 1
    for line in $REPLY; do
        [[ $line =~ ^$3:[[:space:]]*([0-9]+)$ ]] && REPLY=${BASH_REMATCH[1]} && return
    done
    return 1
}

ethtool_put() {      # Setting options are the capital letters: -C for what -c shows.
    local interface option setting
    IFS=: read -r _ interface option setting <<< "$1"
    run_tool ethtool "-${option^^}" "$interface" "${setting,,}" "$2"
}
