# profile.sh - the profile, and the two sets of CPUs it divides the machine into.
#
# USAGE: sourced by tune, never run. A profile is lines of `key = value`, read as text: nothing in it is ever executed.
# default.profile is read first and holds every key; --profile is laid over it.
#
# LIMITS: a value is one line, without quotes; a comment begins with # at the start of a line or after a space.

declare -A SETTING=() TAKES=()         # Value, and what a key takes, by key. Knobs add theirs; these are everyone's.
TAKES[latency_cpus]="words auto none | cpus"
TAKES[housekeeping_cpus]="words auto | cpus"
TAKES[split_siblings]="words no yes"
TAKES[interface]="words none | interfaces"

latency="" housekeeping="" online=""   # CPU lists.
INTERFACES=()
LOGIN_INTERFACE=""

### reading

profile_read() {     # profile_read FILE
    local file=$1 line key value number=0
    local -A seen=()
    { exec 3< "$file"; } 2>/dev/null || die 2 "profile $file cannot be read"
    while IFS= read -r line <&3 || [[ -n $line ]]; do
        number=$(( number + 1 ))
        [[ $line == "#"* ]] && continue
        line=${line%%[[:space:]]#*}
        [[ $line =~ ^[[:space:]]*$ ]] && continue
        [[ $line =~ ^[[:space:]]*([^=[:space:]]+)[[:space:]]*=[[:space:]]*(.*)$ ]] ||
            die 2 "$file:$number: '$line' is not 'key = value'"
        key=${BASH_REMATCH[1]}
        value=${BASH_REMATCH[2]}
        value=${value%"${value##*[![:space:]]}"}
        [[ -n ${TAKES[$key]:-} ]] || die 2 "$file:$number: unknown key '$key'$(profile_hint "$key")"
        [[ -z ${seen[$key]:-} ]] || die 2 "$file:$number: $key is set twice, first on line ${seen[$key]}"
        seen[$key]=$number
        profile_takes "$value" "${TAKES[$key]}" || die 2 "$file:$number: $key = '$value' is not one of: $(profile_grammar "${TAKES[$key]}")"
        SETTING[$key]=$value
    done
    exec 3<&-
}

profile_hint() {     # People bring these from guides; say why there is no such key.
    case ${1##*.} in
        tcp_nodelay) echo ": not a kernel setting at all; it is a socket option, TCP_NODELAY, and the gateway sets it" ;;
        tcp_low_latency) echo ": the kernel has ignored it since 4.14" ;;
        swapoff) echo ": turning swap off can stall the box for minutes; the engine locks its memory instead" ;;
        mitigations) echo ": this tool does not turn security off; a loop that makes no system call gains next to nothing" ;;
        *) echo "; the keys are listed and explained in tuning/default.profile" ;;
    esac
}

profile_takes() {    # profile_takes VALUE GRAMMAR: is the value one of those?
    local value=$1 part
    local -a word=() parts=()
    IFS='|' read -r -a parts <<< "$2"
    for part in "${parts[@]}"; do
        read -r -a word <<< "$part"
        case ${word[0]} in
            words) [[ " ${word[*]:1} " == *" $value "* && $value != *" "* && -n $value ]] && return ;;
            int) [[ $value =~ ^(0|-?[1-9][0-9]{0,11})$ ]] && (( value >= word[1] && value <= word[2] )) && return ;;
            cpus) [[ -n $value ]] && cpulist_expand "$value" && return ;;
            interfaces) [[ $value =~ ^[A-Za-z0-9_.:-]{1,15}(,[A-Za-z0-9_.:-]{1,15})*$ && ,$value, != *,.,* && ,$value, != *,..,* ]] && return ;;
            pernode) [[ $value =~ ^[0-9]{1,4}:[0-9]{1,8}(,[0-9]{1,4}:[0-9]{1,8})*$ ]] && return ;;
            flows) [[ $value =~ ^(udp4|tcp4):([0-9]{1,3}\.){3}[0-9]{1,3}:[1-9][0-9]{0,4}:(0|[1-9][0-9]{0,3})(,(udp4|tcp4):([0-9]{1,3}\.){3}[0-9]{1,3}:[1-9][0-9]{0,4}:(0|[1-9][0-9]{0,3}))*$ ]] && return ;;
            path) [[ $value =~ ^(/[A-Za-z0-9_.-]+)+$ && $value/ != */../* && $value/ != */./* ]] && return ;;
        esac
    done
    return 1
}

profile_grammar() {  # What a person may write, from a grammar.
    local part text out=""
    local -a word=() parts=()
    IFS='|' read -r -a parts <<< "$1"
    for part in "${parts[@]}"; do
        read -r -a word <<< "$part"
        case ${word[0]} in
            words)
                printf -v text ', %s' "${word[@]:1}"
                out+=$text
                ;;
            int) out+=", a number from ${word[1]} to ${word[2]}" ;;
            cpus) out+=", a CPU list such as 2-5,8" ;;
            interfaces) out+=", interface names separated by commas" ;;
            pernode) out+=", a count for each NUMA node such as 0:512,1:256" ;;
            flows) out+=", rules PROTOCOL:ADDRESS:PORT:QUEUE such as udp4:239.1.1.1:26400:2, separated by commas" ;;
            path) out+=", an absolute path without spaces" ;;
        esac
    done
    printf '%s' "${out#, }"
}

### the two sets of CPUs

# Leave housekeeping to CPU 0's core and give every other core to latency, unless the profile says otherwise; refuse
# what would leave the kernel without a place to run or would put a neighbour on a latency core's other thread.
profile_cpus() {     # profile_cpus FILE: the file is named in refusals.
    local file=$1 usable cpu siblings taken
    slurp /sys/devices/system/cpu/online || die 3 "${root}/sys/devices/system/cpu/online cannot be read: is /sys mounted?"
    online=$REPLY
    usable=$online
    if [[ ${SETTING[smt]} == off ]]; then
        # The second thread of each core is about to go, so it can be in neither set.
        usable=""
        cpulist_expand "$online" || die 3 "online CPUs '$online' make no sense"
        for cpu in $REPLY; do
            siblings_of "$cpu"
            [[ ${REPLY%%[-,]*} != "$cpu" ]] || usable+=",$cpu"
        done
        usable=${usable#,}
    fi

    latency=${SETTING[latency_cpus]}
    case $latency in
        none) latency="" ;;
        auto)
            # Whole cores only: what shares a core with a housekeeping CPU, or with CPU 0, is left out.
            siblings_of 0
            taken=$REPLY
            if [[ ${SETTING[housekeeping_cpus]} != auto ]]; then
                cpulist_expand "${SETTING[housekeeping_cpus]}"
                for cpu in $REPLY; do siblings_of "$cpu" && taken+=,$REPLY; done
            fi
            cpulist_pick out "$usable" "$taken"
            latency=$REPLY
            ;;
        *)
            cpulist_pick out "$latency" "$usable"
            [[ -z $REPLY ]] || die 2 "$file: latency_cpus = $latency: CPU $REPLY is offline or absent (online here: $usable)"
            cpulist_pick in "$latency" 0
            [[ -z $REPLY ]] || die 2 "$file: latency_cpus = $latency: CPU 0 boots the machine and keeps its time: it cannot be a latency CPU"
            cpulist_pick in "$latency" "$usable"
            latency=$REPLY
            ;;
    esac

    housekeeping=${SETTING[housekeeping_cpus]}
    if [[ $housekeeping == auto ]]; then
        cpulist_pick out "$usable" "$latency"
        housekeeping=$REPLY
    else
        cpulist_pick out "$housekeeping" "$usable"
        [[ -z $REPLY ]] || die 2 "$file: housekeeping_cpus = $housekeeping: CPU $REPLY is offline or absent (online here: $usable)"
        cpulist_pick in "$housekeeping" "$latency"
        [[ -z $REPLY ]] || die 2 "$file: CPU $REPLY is in both latency_cpus and housekeeping_cpus"
        cpulist_pick in "$housekeeping" "$usable"
        housekeeping=$REPLY
    fi
    [[ -n $housekeeping ]] || die 2 "$file: latency_cpus = $latency leaves no housekeeping CPU: the kernel and this shell need one"

    [[ ${SETTING[split_siblings]} == no && -n $latency ]] || return 0
    cpulist_expand "$latency"
    for cpu in $REPLY; do
        siblings_of "$cpu"
        siblings=$REPLY
        cpulist_pick in "$siblings" "$usable"
        cpulist_within "$REPLY" "$latency" ||
            die 2 "$file: CPU $cpu is for latency but its core's other thread is not (core: $siblings): they share one execution engine. Move both, or say split_siblings = yes"
    done
}

siblings_of() {      # REPLY is the CPUs of this CPU's core, itself included.
    slurp "/sys/devices/system/cpu/cpu$1/topology/thread_siblings_list" || REPLY=$1
}

### network interfaces

profile_interfaces() {
    local file=$1 interface
    INTERFACES=()
    [[ ${SETTING[interface]} == none ]] && return 0
    IFS=, read -r -a INTERFACES <<< "${SETTING[interface]}"
    for interface in "${INTERFACES[@]}"; do
        [[ -d $root/sys/class/net/$interface ]] || die 2 "$file: interface = $interface: there is no such network interface here"
    done
    login_interface
    LOGIN_INTERFACE=$REPLY
}

# The interface our own ssh session comes in through, or nothing. sudo drops SSH_CONNECTION from the environment, so
# the shells above us are asked for theirs.
login_interface() {
    local connection=${SSH_CONNECTION:-} pid=$PPID entry client server stat
    local -a word=()
    while [[ -z $root && -z $connection && $pid -gt 1 ]]; do
        while IFS= read -r -d '' entry; do
            [[ $entry == SSH_CONNECTION=* ]] && connection=${entry#*=}
        done < "/proc/$pid/environ"
        read -r stat < "/proc/$pid/stat" || break
        read -r -a word <<< "${stat##*) }"
        pid=${word[1]}
    done 2>/dev/null
    read -r client _ server _ <<< "$connection"
    client=${client#::ffff:}
    case $client in
        *:*) interface_of6 "$server" ;;
        *.*) route4 "$client" ;;
        *) REPLY="" ;;
    esac
}

route4() {           # REPLY is the interface of the longest matching route to this IPv4 address.
    local address mask bits best=-1 found=""
    local -a word=()
    REPLY=""
    [[ $1 =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$ ]] || return 0
    # The kernel lists addresses as little-endian words.
    address=$(( 10#${BASH_REMATCH[4]} << 24 | 10#${BASH_REMATCH[3]} << 16 | 10#${BASH_REMATCH[2]} << 8 | 10#${BASH_REMATCH[1]} ))
    while read -r -a word; do
        [[ ${word[1]:-} =~ ^[0-9A-F]{8}$ && ${word[7]:-} =~ ^[0-9A-F]{8}$ ]] || continue
        mask=$(( 16#${word[7]} ))
        (( (address & mask) == 16#${word[1]} )) || continue
        for (( bits = 0; mask; mask &= mask - 1 )); do (( ++bits )); done
        (( bits > best )) && best=$bits found=${word[0]}
    done 2>/dev/null < "$root/proc/net/route"
    REPLY=$found
}

interface_of6() {    # REPLY is the interface that has this IPv6 address.
    local group left="" right="" address=${1%%\%*}
    local -a word=()
    REPLY=""
    [[ $address =~ ^[0-9a-fA-F:]+$ ]] || return 0
    local IFS=:
    for group in ${address%%::*}; do printf -v left '%s%04x' "$left" "$((16#$group))"; done
    if [[ $address == *::* ]]; then
        for group in ${address#*::}; do printf -v right '%s%04x' "$right" "$((16#$group))"; done
    fi
    while (( ${#left} + ${#right} < 32 )); do left+=0; done
    IFS=$' \t'
    while read -r -a word; do
        [[ ${word[0]:-} != "$left$right" ]] || REPLY=${word[5]}
    done 2>/dev/null < "$root/proc/net/if_inet6"
}
