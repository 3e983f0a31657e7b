# timestamping - hold one socket that asks for receive timestamps.
name=timestamping
why="the first such socket patches the kernel's code, which interrupts every CPU, and the last one to close undoes it: hold one, and it happens once"
danger="each received packet is stamped, some 20 ns; it ends with the small process that holds it, so a systemd unit needs RemainAfterExit=yes"
source="tuned plugin rtentsk; kernel networking/timestamping, static keys"
needs="perl or python3, to hold a socket with an option: a shell cannot"
takes="words hold"

STAMPS_HOLDER=/run/tickpath-timestamping.pid
# The name that the holder takes once the kernel has read the option back to it, and not before.
STAMPS_NAME=tp-timestamping

# SOL_SOCKET is 1, SO_TIMESTAMP 29, AF_INET and SOCK_DGRAM 2.
# shellcheck disable=SC2016  # The dollars are perl's.
STAMPS_PERL='socket(S, 2, 2, 0) && setsockopt(S, 1, 29, pack("i", 1)) && unpack("i", getsockopt(S, 1, 29)) == 1 or exit 1;
open(C, ">", "/proc/self/comm") && print(C $ARGV[0]) && close(C) or exit 1; sleep while 1;'
STAMPS_PYTHON='import signal, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(1, 29, 1)
s.getsockopt(1, 29) == 1 or sys.exit(1)
with open("/proc/self/comm", "w") as f: f.write(sys.argv[1])
while True: signal.pause()'

want() {
    tool perl || tool python3 || { unsupported "needs $needs"; return; }
    target socket:timestamping held
}

# REPLY is the holder's process id, if it holds: a corpse that nobody has collected keeps its name, but no socket.
stamps_holder() {
    local pid comm
    slurp "$STAMPS_HOLDER" || return 1
    pid=$REPLY
    [[ $pid =~ ^[0-9]+$ ]] && read -r comm 2>/dev/null < "/proc/$pid/comm" && [[ $comm == "$STAMPS_NAME" ]] || return 1
    [[ $(readlink "/proc/$pid/fd/3") == socket:* ]] || return 1
    REPLY=$pid
} 2>/dev/null

got() {
    if stamps_holder; then REPLY=held; else REPLY=absent; fi
}

put() {
    local pid
    restore || return
    mkdir -p "$root${STAMPS_HOLDER%/*}"
    # As with dma-latency, the number is on record before anything is held.
    (
        trap '' HUP
        printf '%s\n' "$BASHPID" > "$root$STAMPS_HOLDER" || exit 1
        tool perl && exec "$REPLY" -e "$STAMPS_PERL" "$STAMPS_NAME"
        tool python3 && exec "$REPLY" -c "$STAMPS_PYTHON" "$STAMPS_NAME"
    ) < /dev/null > /dev/null 2>&1 &
    pid=$!
    disown "$pid"
    for _ in {1..100}; do
        stamps_holder && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.02
    done
    rm -f "$root$STAMPS_HOLDER"
    ERROR="the process that should hold the socket ended: not supported"
    return 1
}

still_ours() { stamps_holder; }

restore() {
    if stamps_holder; then
        kill "$REPLY"
        for _ in {1..50}; do stamps_holder || break; sleep 0.02; done
        ! stamps_holder || { ERROR="process $REPLY does not end"; return 1; }
    fi
    rm -f "$root$STAMPS_HOLDER"
}

restored() { ! stamps_holder; }
