"""Big-endian integers in byte buffers. LLVM merges the byte loads into one load and a byte swap."""

import numpy as np
from numba import njit


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_u16(buffer, at):
    return (np.int64(buffer[at]) << 8) | np.int64(buffer[at + 1])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_u32(buffer, at):
    return (np.int64(buffer[at]) << 24) | (np.int64(buffer[at + 1]) << 16) | (np.int64(buffer[at + 2]) << 8) | np.int64(buffer[at + 3])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_u48(buffer, at):
    return (get_u16(buffer, at) << 32) | get_u32(buffer, at + 2)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_u64(buffer, at):
    """As int64: the top bit becomes the sign, which no field of these protocols uses."""
    return (get_u32(buffer, at) << 32) | get_u32(buffer, at + 4)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_raw64(buffer, at):
    """Eight bytes in memory order, as a symbol is kept (engine.layout.pack_symbol)."""
    low = np.int64(buffer[at]) | (np.int64(buffer[at + 1]) << 8) | (np.int64(buffer[at + 2]) << 16) | (np.int64(buffer[at + 3]) << 24)
    high = np.int64(buffer[at + 4]) | (np.int64(buffer[at + 5]) << 8) | (np.int64(buffer[at + 6]) << 16) | (np.int64(buffer[at + 7]) << 24)
    return low | (high << 32)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_u16(buffer, at, value):
    buffer[at] = (value >> 8) & 0xFF
    buffer[at + 1] = value & 0xFF


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_u32(buffer, at, value):
    put_u16(buffer, at, value >> 16)
    put_u16(buffer, at + 2, value)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_u48(buffer, at, value):
    put_u16(buffer, at, value >> 32)
    put_u32(buffer, at + 2, value)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_u64(buffer, at, value):
    put_u32(buffer, at, value >> 32)
    put_u32(buffer, at + 4, value)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_raw64(buffer, at, value):
    for byte in range(8):
        buffer[at + byte] = (value >> (8 * byte)) & 0xFF
