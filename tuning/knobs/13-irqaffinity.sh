# irqaffinity - interrupts of drivers that load later start on housekeeping CPUs.
name=irqaffinity
why="the mask new interrupts start with, from the first driver on; knobs irq-default and irqs move what is there already"
danger="drivers that spread one queue over each CPU may make fewer queues"
source="kernel admin-guide/kernel-parameters; admin-guide/cpu-isolation"
since=2.6
takes="words yes"
lasts=boot

want() {
    need_latency || return
    argument irqaffinity "$housekeeping"
}

got() { argument_got "$1"; }
same() { cpulist_equal "$1" "$2" 2>/dev/null; }
