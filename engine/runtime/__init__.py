"""From a config to running processes: clock, placement, the loop around the kernels, the supervisor, the report."""
