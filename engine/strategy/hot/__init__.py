"""The strategy's kernels: state, the API that a handler calls, and the events around it. The turn itself is generated (compose.py)."""
