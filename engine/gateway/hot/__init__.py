"""The gateway's kernels, from bytes to decisions: encode, orders, executions, reports, venue, session, step.

They are compiled without numba's runtime (_nrt=False): it would count references to all thirty arrays at every call, which made judging
and encoding an order take 1,070 ns instead of 20. Without it a kernel that allocates does not compile at all.
"""
