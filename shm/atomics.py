"""Every memory ordering there is in tickpath.

A load with acquire: nothing after it in the program is read before it. A store with release: everything before it in the
program is visible to whoever sees the store. Paired on one word, they hand the bytes written before the store to the
reader after the load. On x86-64 both are plain moves; what they buy is that the compiler keeps them, in their order.

Kernels call these as functions. Under NUMBA_DISABLE_JIT=1 each has a twin in plain Python, for stepping through a kernel
with a debugger: the twins show the logic, never the ordering.

`words[index]` is an 8-byte element, or a record whose first field is the 8-byte word (a ring slot, a board line).
Words are read and written as int64. A kernel's signed `+` and `-` are undefined where they overflow (numba marks them `nsw`,
and LLVM then turns `a - b < 0` into `a < b`), so positions, which may wrap, go through wrap_add and wrap_sub.
"""

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from shm._shim import lib

I64 = ir.IntType(64)


def _word_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """The address of the 8-byte word at the start of array[index]."""
    view = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, view, (index,), wraparound=False)
    return builder.bitcast(item, I64.as_pointer())


def _check_word(array: Any) -> None:
    if not isinstance(array, types.Array) or array.ndim != 1:
        raise TypeError(f"words={array}: expected a one-dimensional array")
    if isinstance(array.dtype, types.Record):
        first = next(iter(array.dtype.fields.values()))
        if first.offset != 0 or first.type.bitwidth != 64:
            raise TypeError(f"words={array}: expected a record that begins with its 8-byte word")
    elif array.dtype.bitwidth != 64:
        raise TypeError(f"words={array}: expected 8-byte elements")


if config.DISABLE_JIT:

    def _field(words: Any) -> str | None:
        return words.dtype.names[0] if words.dtype.names else None

    def load_acquire(words: Any, index: int) -> int:
        field = _field(words)
        value = int(words[index] if field is None else words[index][field])
        return value - (1 << 64) if value >= 1 << 63 else value

    def store_release(words: Any, index: int, value: int) -> None:
        field = _field(words)
        kind = words.dtype if field is None else words.dtype[field]
        raw = int(value) % (1 << 64) if kind.kind == "u" else int(value)
        if field is None:
            words[index] = raw
        else:
            words[index][field] = raw

    store_relaxed = store_release

    def fence_acquire() -> None: ...

    def fence_release() -> None: ...

    def fence_seq_cst() -> None: ...

    def pause() -> None: ...

    def prefetch(array: Any, index: int) -> None: ...

    def prefetch_write(array: Any, index: int) -> None: ...

    def read_tsc() -> int:
        return int(lib.tp_rdtsc())

    def wrap_add(a: int, b: int) -> int:
        return (int(a) + int(b) + (1 << 63)) % (1 << 64) - (1 << 63)

    def wrap_sub(a: int, b: int) -> int:
        return wrap_add(a, -int(b))

    def highest_bit(value: int) -> int:
        return int(value).bit_length() - 1

else:

    @intrinsic
    def load_acquire(typingctx, words, index):
        """words[index] as int64; nothing later in the program is read before it."""
        _check_word(words)

        def codegen(context, builder, signature, arguments):
            pointer = _word_pointer(context, builder, signature.args[0], arguments[0], arguments[1])
            return builder.load_atomic(pointer, "acquire", 8)

        return types.int64(words, types.intp), codegen

    def _store(ordering: str) -> Any:
        def typed(typingctx, words, index, value):
            _check_word(words)

            def codegen(context, builder, signature, arguments):
                pointer = _word_pointer(context, builder, signature.args[0], arguments[0], arguments[1])
                builder.store_atomic(arguments[2], pointer, ordering, 8)
                return context.get_dummy_value()

            return types.void(words, types.intp, types.int64), codegen

        return typed

    @intrinsic
    def store_release(typingctx, words, index, value):
        """words[index] = value, visible only after everything stored before it."""
        return _store("release")(typingctx, words, index, value)

    @intrinsic
    def store_relaxed(typingctx, words, index, value):
        """words[index] = value as one store that the compiler must keep, with no order of its own."""
        return _store("monotonic")(typingctx, words, index, value)

    def _fence(ordering: str) -> Any:
        def codegen(context, builder, signature, arguments):
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def fence_acquire(typingctx):
        """Loads before the fence happen before loads and stores after it."""
        return _fence("acquire")

    @intrinsic
    def fence_release(typingctx):
        """Loads and stores before the fence happen before stores after it."""
        return _fence("release")

    @intrinsic
    def fence_seq_cst(typingctx):
        """Stores before the fence happen before loads after it: the one order that x86-64 does not give by itself (some 30 cycles)."""
        return _fence("seq_cst")

    @intrinsic
    def pause(typingctx):
        """Tell the core that it spins: a sibling thread gets the pipeline, and leaving the loop is not mispredicted."""

        def codegen(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
            return context.get_dummy_value()

        return types.void(), codegen

    def _prefetch(array: Any, write: int) -> Any:
        if not isinstance(array, types.Array) or array.ndim != 1:
            raise TypeError(f"array={array}: expected a one-dimensional array")

        def codegen(context, builder, signature, arguments):
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            item = cgutils.get_item_pointer(context, builder, signature.args[0], view, (arguments[1],), wraparound=False)
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte] + [ir.IntType(32)] * 3)
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            flags = [ir.Constant(ir.IntType(32), flag) for flag in (write, 3, 1)]
            builder.call(function, [builder.bitcast(item, byte), *flags])
            return context.get_dummy_value()

        return types.void(array, types.intp), codegen

    @intrinsic
    def prefetch(typingctx, array, index):
        """Ask for the line of array[index]. A hint: any index is safe, in the array or not."""
        return _prefetch(array, 0)

    @intrinsic
    def prefetch_write(typingctx, array, index):
        """Ask for the line of array[index] to write. A hint: any index is safe, in the array or not."""
        return _prefetch(array, 1)

    @intrinsic
    def read_tsc(typingctx):
        """The time stamp counter, in ticks. Not ordered with memory: an interval of a few ticks is below its resolution."""

        def codegen(context, builder, signature, arguments):
            kind = ir.FunctionType(I64, [])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

        return types.int64(), codegen

    @intrinsic
    def wrap_add(typingctx, a, b):
        """a + b of two int64, modulo 2^64."""

        def codegen(context, builder, signature, arguments):
            return builder.add(*arguments)

        return types.int64(types.int64, types.int64), codegen

    @intrinsic
    def wrap_sub(typingctx, a, b):
        """a - b of two int64, modulo 2^64: how far position a is ahead of position b, even where one of them has wrapped."""

        def codegen(context, builder, signature, arguments):
            return builder.sub(*arguments)

        return types.int64(types.int64, types.int64), codegen

    @intrinsic
    def highest_bit(typingctx, value):
        """The number of the highest bit set in a positive int64: 0 for 1, 10 for 1024. Undefined for 0."""

        def codegen(context, builder, signature, arguments):
            zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
            return builder.sub(ir.Constant(I64, 63), zeros)

        return types.int64(types.int64), codegen
