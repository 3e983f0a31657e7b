# rcu-boot - fewer interrupts between CPUs on behalf of RCU.
name=rcu-boot
why="after boot, grace periods are not rushed by interrupting every CPU, and a nohz_full CPU is left in peace for a second"
danger="operations that wait for RCU, such as taking an interface down, take milliseconds longer"
source="tuned profile network-latency"
since=4.5
needs="kernel 4.5; 6.11 for nohz_full_patience_delay"
takes="words yes"
lasts=boot

want() {
    argument rcupdate.rcu_normal_after_boot 1
    ! version_at_least "$KERNEL" 6.11 || argument rcutree.nohz_full_patience_delay 1000
}

got() { argument_got "$1"; }
