"""The gateway's kernels whatever the venue: orders, executions, reports, take, sweep, step. A venue's own are in its folder (ouch).

They are compiled without numba's runtime (_nrt=False): it would count references to all thirty arrays at every call, which made judging
and encoding an order take 1,070 ns instead of 20. Without it a kernel that allocates does not compile at all.
"""
