# The shipped profile, and the manual of all profiles.
#
# It fits any machine: the core of CPU 0 keeps house, every other core is for latency. Nothing in it is dangerous and
# nothing in it reserves memory or touches a network interface: those keys say `keep` or `none` and wait for you.
#
# Your own profile needs only the lines that differ, as this file is read first:
#
#     latency_cpus = 2-7
#     interface    = eth1
#     hugepages    = 512
#
# A line is `key = value`; # begins a comment. A key that is not in this file is an error, and so is a value the key
# does not take. Every key but the first four also takes `keep`: leave this alone.

### Who runs where

# CPUs for latency: one of your hot processes each. `auto`: all cores but that of CPU 0 (and those of housekeeping_cpus).
# `none`: no CPU is set aside. CPU 0 is refused: it boots the machine and keeps its time.
latency_cpus = auto

# CPUs for everything else: the kernel, interrupts, shells, the recorder. `auto`: all that are not for latency.
housekeeping_cpus = auto

# The two threads of one core share its execution units, so both belong to one set. `yes`: you know, and split a core.
split_siblings = no

# The interfaces that carry the feed and the orders, separated by commas, or `none`. The one you are logged in through
# is refused without --login-interface.
interface = none

### At boot: kernel arguments. They act after update-grub and a reboot.

# `print`: plan shows the line to add. `write`: apply puts it into a grub drop-in of our own, which revert removes;
# neither runs update-grub. --write-dropin is the same as `write`.
boot_dropin = print

isolcpus     = yes    # isolcpus=managed_irq,domain,LATENCY
nohz_full    = yes    # No tick beside a lone task. Dearer system calls: measure a gateway with and without.
rcu_nocbs    = yes
irqaffinity  = yes
skew_tick    = yes
rcu_boot     = yes    # rcupdate.rcu_normal_after_boot=1 rcutree.nohz_full_patience_delay=1000
tsc_reliable = keep   # Dangerous: nobody watches the TSC any more.

### Isolation now, without a reboot

smt = keep            # `off` turns every core's second thread off: half of the CPU numbers vanish.

# Isolated CPUs by cpuset, whichever cgroup version is there. From then on a process runs on a latency CPU only after
# it has been put there: echo $$ > /sys/fs/cgroup/tickpath.latency/cgroup.procs (v1: /sys/fs/cgroup/cpuset/tickpath.latency).
cpuset_v2 = yes
cpuset_v1 = yes

irqbalance  = stop
irq_default = housekeeping
irqs        = housekeeping
workqueues  = housekeeping
kthreads    = housekeeping

### Power and clock

epp      = performance
governor = performance
min_perf = 100
boost    = on         # `off` is slower and the same every day.
energy_bias = 0

# How deep an idle CPU may sleep, in microseconds to wake from it. `c1`: as long as C1 takes on this machine. 0 means
# that no CPU ever sleeps, which costs the neighbours their turbo.
dma_latency = c1

# The same for the latency CPUs alone: `n/a` is no sleep at all, a number is microseconds. Then say dma_latency = keep.
resume_latency = keep

clocksource = tsc
ignore_ce   = keep    # Dangerous: corrected memory errors go unseen.

### The kernel's own noise

nmi_watchdog    = 0
watchdog_cpus   = housekeeping
timer_migration = 0
stat_interval   = 10  # Seconds.
rcu_normal      = 1

### Memory

thp                = madvise      # Or `never`.
khugepaged_defrag  = 0
shm_huge           = advise       # The mount option of /dev/shm: never, advise, within_size, always.

# Pages of 2 MiB on each NUMA node (512 is 1 GiB a node), or for each node by name: 0:512,1:256. The kernel may grant
# fewer, and says so: apply early after boot.
hugepages     = keep
hugetlb_mount = /dev/hugepages    # Used where hugepages are asked for.

ksm                = 0
numa_balancing     = 0
compaction         = 0
compact_unevictable = 0
swappiness         = 10
zone_reclaim       = 0

### Scheduling: dangerous, read the README first

rt_runtime  = keep    # -1: real-time threads may take all of every second. The kernel's own threads may starve.
fair_server = keep    # `off`: the same for kernels from 6.12 on.

### Network, for every program

busy_read = keep      # Microseconds of spinning in read. SO_BUSY_POLL on the feed's socket is better.
busy_poll = keep      # The same for poll and select.
rmem_max  = 16777216  # Bytes; at least.
wmem_max  = 16777216

# Hold one socket open that asks for timestamps, so that the kernel patches itself for that once and not while trading.
timestamping = hold

### Network, for the interfaces named above

nic_irqs = keep       # `housekeeping`, or CPUs of your choice: near the feed handler, not on its own.
coalesce = off        # No waiting for more packets; a number is microseconds (rx-usecs).
rings    = keep       # Dangerous: `max` or a length. Most drivers drop the link for a moment.
queues   = keep       # Dangerous: how many queues. The link goes down; never while trading.

# Packets for an address and port to one queue: PROTOCOL:ADDRESS:PORT:QUEUE, as in udp4:239.1.1.1:26400:2, several with commas.
flows    = keep

rss      = keep       # Spread received packets over the first N queues.
xps      = keep       # `spread`: a transmit queue for each latency CPU.
