# irq-default - new interrupts start on housekeeping CPUs.
name=irq-default
why="an interrupt that appears later, with a device or a driver, does not start on a latency CPU"
danger="none for interrupts that are there already"
source="kernel core-api/irq/irq-affinity"
takes="words housekeeping"

want() {
    need_latency || return
    cpumask_of "$housekeeping"
    target /proc/irq/default_smp_affinity "$REPLY"
}

same() { same_mask "$1" "$2"; }
enough() { mask_within "$1" "$2"; }
