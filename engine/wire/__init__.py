"""Bytes and sockets, below every venue: message tables, big-endian integers, system calls for kernels."""
