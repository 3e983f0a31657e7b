# tcp-low-latency - a setting that does nothing.
name=tcp-low-latency
why="guides still set it; the kernel has ignored it since 4.14, so a tool that sets and checks it is green for nothing"
danger="none, except to believe in it"
source="kernel networking/ip-sysctl (\"legacy option\")"

want() {
    target /proc/sys/net/ipv4/tcp_low_latency 0
    no_op "has had no effect since kernel 4.14; never written"
    if slurp /proc/sys/net/ipv4/tcp_low_latency && [[ $REPLY != 0 ]]; then
        warn "net.ipv4.tcp_low_latency is $REPLY and does nothing since kernel 4.14: somebody believes otherwise; remove it from sysctl.conf"
    fi
}
