# rt-runtime - how much of each second real-time threads may take.
name=rt-runtime
why="-1 lets a spinning SCHED_FIFO thread keep its CPU; at 950000 it may lose up to 50 ms of every second"
danger="with -1 a spinning FIFO thread starves the kernel's own threads on its CPU: RCU stalls, hung tasks, a box that cannot be killed. On an isolated CPU SCHED_OTHER is nearly as good"
source="kernel scheduler/sched-rt-group; Red Hat real-time guide"
takes="int -1 1000000"
tier=dangerous

want() { target /proc/sys/kernel/sched_rt_runtime_us "$value"; }
same() { same_number "$1" "$2"; }
