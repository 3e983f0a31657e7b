# The profile that tickpath-tune.service applies at boot. Only what differs from the shipped one, which is the manual of all
# keys: default.profile, beside tune.

# CPUs are isolated by the kernel line (isolcpus=, the boot knobs), not by a cpuset: an engine that is not root may pin itself to
# an isolated CPU, but may not move itself into a cgroup v2 set. See the plan for the line: tickpath-tune plan
cpuset_v2 = keep
cpuset_v1 = keep

# What you will want to set:
#latency_cpus = 2-7
#interface    = eth1
#hugepages    = 512
