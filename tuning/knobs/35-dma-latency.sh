# dma-latency - hold /dev/cpu_dma_latency open, which keeps every CPU out of deep sleep.
name=dma-latency
why="waking from a deep C-state takes 50 to 200 us; held at C1's own latency (c1), an idle CPU is back in about one"
danger="heat and power, and less turbo for the others; it ends with the small process that holds it, so a systemd unit needs RemainAfterExit=yes"
source="kernel admin-guide/pm/cpuidle (PM QoS); tuned profile latency-performance"
needs="/dev/cpu_dma_latency, and root to read it"
takes="words c1 | int 0 1000"

HOLDER=/run/tickpath-dma-latency.pid

want() {
    if [[ $value == c1 ]]; then
        slurp /sys/devices/system/cpu/cpu0/cpuidle/state1/latency || { unsupported "no C-states to stay out of: no cpuidle/state1 here"; return; }
        value=$REPLY
    fi
    target /dev/cpu_dma_latency "$value"
}

# The device answers with what all its holders together ask for, as a 32-bit number.
got() {
    [[ -e $root$1 ]] || return 2
    REPLY=$(od -An -td4 -N4 "$root$1" 2>/dev/null)
    REPLY=${REPLY//[[:space:]]/}
    [[ -n $REPLY ]]
}

enough() { at_most "$1" "$2"; }
same() { same_number "$1" "$2"; }

put() {
    local device=$root$1 byte bytes="" shift pid
    restore "$1" "" || true
    mkdir -p "$root${HOLDER%/*}"
    for shift in 0 8 16 24; do
        printf -v byte '\\x%02x' "$(( $2 >> shift & 255 ))"
        bytes+=$byte
    done
    # The number of the process is on record before it can hold anything, so that a killed tune leaves no stranger behind.
    (
        trap '' HUP
        printf '%s\n' "$BASHPID" > "$root$HOLDER" || exit 1
        # shellcheck disable=SC2059  # The format is the bytes.
        exec 3<> "$device" && printf "$bytes" >&3 && exec sleep infinity
    ) < /dev/null > /dev/null 2>&1 &
    pid=$!
    disown "$pid"
    for _ in {1..50}; do
        holder && got "$1" && enough "$2" "$REPLY" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.02
    done
    ERROR="Permission denied"
    return 1
}

# REPLY is the holder's process id, if that process really holds the device and is not another with its number.
holder() {
    local pid open
    slurp "$HOLDER" || return 1
    pid=$REPLY
    [[ $pid =~ ^[0-9]+$ ]] && open=$(readlink "/proc/$pid/fd/3") && [[ $open -ef $root/dev/cpu_dma_latency ]] || return 1
    REPLY=$pid
}

still_ours() { holder; }

restore() {
    if holder; then
        kill "$REPLY"
        for _ in {1..50}; do holder || break; sleep 0.02; done
    fi
    rm -f "$root$HOLDER"
}

# Others may hold it too, and then the number stays low.
restored() { ! holder; }
