# irqbalance - stop the service that moves interrupts about.
name=irqbalance
why="it would undo what knobs irq-default, irqs and nic-irqs set, every ten seconds"
danger="interrupts stay where they are put: a housekeeping CPU can get more than it can serve"
source="tuned profile cpu-partitioning; irqbalance(1)"
needs="irqbalance installed, and systemctl to stop it"
takes="words stop"

want() {
    got service:irqbalance
    if [[ $REPLY == stopped ]] && ! { tool systemctl && tool irqbalance; }; then
        no_op "irqbalance is not installed"
        return
    fi
    tool systemctl || guard "irqbalance runs, and there is no systemctl to stop it with: stop it the way it was started"
    target service:irqbalance stopped
}

# Asked of the process list, as what the service manager believes is not the point.
got() {
    local entry
    for entry in "$root"/proc/[0-9]*/comm; do
        slurp "${entry#"$root"}" && [[ $REPLY == irqbalance ]] && REPLY=running && return
    done
    REPLY=stopped
}

put() {
    case $2 in
        stopped) run_tool systemctl stop irqbalance ;;
        *) run_tool systemctl start irqbalance ;;
    esac
}
