"""What a compiler made of a kernel, as a flow of memory operations: which come before which on every way through it.

`flow_of(kernel)` reads LLVM's optimized text of a numba kernel. An operation knows the array it works on (an argument of the kernel, or
a field of a named tuple of arrays), followed back through the address arithmetic. The questions asked of a Flow are about paths: an
operation is before another when no path reaches the other around it, whatever the order of the text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# How numba names the address of an array's data among a function's arguments, alone or in a tuple.
_ARGUMENT = re.compile(r"%arg\.(\w+?)(?:\.(\d+))?\.4$")
_LOAD = re.compile(r"= load (atomic )?\S+, ptr (%[\w.]+)(?: (\w+))?, align")
_STORE = re.compile(r"^store (atomic )?.*, ptr (%[\w.]+)(?: (\w+))?, align")
_FENCE = re.compile(r"^fence (\w+)")
_COPY = re.compile(r"@llvm\.mem(?:cpy|move)\S*\(ptr [^%]*(%[\w.]+), ptr [^%]*(%[\w.]+),")
_ADDRESS = re.compile(r"^(%[\w.]+) = (?:getelementptr|phi|select)\b(.*)$")
_BYTES_ON = re.compile(r"i8, ptr %[\w.]+, i64 (-?\d+)")


@dataclass(frozen=True)
class Operation:
    """A load, store or fence. `order` is LLVM's word (plain where it is no atomic); `array` and `offset` are None where unknown."""

    block: str
    line: int
    kind: str
    order: str
    array: str | None = None
    offset: int | None = None


@dataclass
class Flow:
    """The operations of a function in the order of its text, and which block may follow which."""

    entry: str
    operations: list[Operation] = field(default_factory=list)
    follows: dict[str, list[str]] = field(default_factory=dict)
    text: str = ""

    def having(self, kind: str, order: str | None = None, array: str | None = None, offset: int | None = None) -> list[Operation]:
        return [
            operation
            for operation in self.operations
            if operation.kind == kind
            and order in (None, operation.order)
            and array in (None, operation.array)
            and offset in (None, operation.offset)
        ]

    def reaches(self, start: Operation | None, goal: Operation | None, around: Iterable[Operation] = ()) -> bool:
        """Whether a path leads from just after `start` (None: the entry) to `goal` (None: a return) that meets none of `around`."""
        avoided = set(around)
        todo = [(self.entry, -1) if start is None else (start.block, start.line)]
        seen: set[str] = set()
        while todo:
            block, line = todo.pop()
            inside = [operation for operation in self.operations if operation.block == block and operation.line > line]
            stop = next((operation for operation in inside if operation in avoided or operation == goal), None)
            if stop is not None and stop == goal:
                return True
            if stop is None:
                if goal is None and not self.follows[block]:
                    return True
                todo += [(after, -1) for after in self.follows[block] if after not in seen]
                seen.update(self.follows[block])
        return False

    def always_between(self, start: Operation | None, middle: Iterable[Operation], goal: Operation | None) -> bool:
        """Whether every path from `start` to `goal` meets one of `middle`."""
        return not self.reaches(start, goal, around=middle)


def flow_of(kernel: Any, arrays: dict[str, tuple[str, ...]]) -> Flow:
    """The flow of a kernel compiled for one signature. `arrays` names the fields of arguments that are tuples of arrays."""
    (text,) = kernel.inspect_llvm().values()
    bodies = re.findall(r"^define [^\n]*@(\w+)\([^\n]*\{\n(.*?)^\}", text, flags=re.DOTALL | re.MULTILINE)
    name = kernel.py_func.__name__
    (body,) = [body for symbol, body in bodies if name in symbol and "cpython" not in symbol and "cfunc" not in symbol]
    return _parse(body, arrays)


def _parse(body: str, arrays: dict[str, tuple[str, ...]]) -> Flow:
    lines = [line.strip() for line in body.splitlines()]
    addresses = {match[1]: match[2] for line in lines if (match := _ADDRESS.match(line))}
    flow = Flow("", text=body)
    block = ""
    for number, line in enumerate(lines):
        if label := re.match(r'^"?([\w.$-]+)"?:', line):
            block = label[1]
            flow.entry = flow.entry or block
            flow.follows[block] = []
            continue
        flow.follows[block] += re.findall(r'label %"?([\w.$-]+)"?', line)
        for kind, order, address in _operations_in(line):
            array, offset = _place(address, addresses, arrays)
            flow.operations.append(Operation(block, number, kind, order, array, offset))
    return flow


def _operations_in(line: str) -> list[tuple[str, str, str | None]]:
    for kind, pattern in (("load", _LOAD), ("store", _STORE)):
        if match := pattern.search(line):
            return [(kind, match[3] if match[1] else "plain", match[2])]
    if match := _FENCE.match(line):
        return [("fence", match[1], None)]
    if match := _COPY.search(line):
        return [("load", "plain", match[2]), ("store", "plain", match[1])]
    return []


def _place(address: str | None, addresses: dict[str, str], arrays: dict[str, tuple[str, ...]]) -> tuple[str | None, int | None]:
    """The array that an address lies in, and how far, where that is a constant."""
    offset: int | None = 0
    seen: set[str] = set()
    while address is not None and not (argument := _ARGUMENT.match(address)):
        # Of a phi that goes on from itself, the operand that it began with.
        made_of = [operand for operand in re.findall(r"%[\w.]+", addresses.get(address, "")) if operand not in seen]
        bases = [operand for operand in made_of if operand in addresses or _ARGUMENT.match(operand)]
        on = _BYTES_ON.search(addresses.get(address, ""))
        offset = offset + int(on[1]) if on and offset is not None else None
        seen.add(address)
        address = next(iter(bases), None)
    if address is None:
        return None, None
    name, number = argument[1], argument[2]
    return (arrays[name][int(number)] if number else name), offset


@dataclass(frozen=True)
class Instruction:
    """One line of x86-64 assembly: its mnemonic, its operands, and the memory it names (displacement, and what is in the brackets)."""

    line: int
    name: str
    operands: str

    @property
    def memory(self) -> tuple[str, str] | None:
        found = re.search(r"(-?\d*)\((%[^)]*)\)", self.operands)
        return (found[1] or "0", found[2]) if found else None

    @property
    def stores(self) -> bool:
        """Whether memory is what it writes: the last operand, for all that are met here but comparisons."""
        return self.memory is not None and self.operands.endswith(")") and not self.name.startswith(("cmp", "test", "prefetch", "lea", "j"))

    @property
    def loads(self) -> bool:
        return self.memory is not None and not self.stores and not self.name.startswith(("prefetch", "lea"))

    @property
    def is_locked(self) -> bool:
        """Whether it waits for earlier stores to be seen: the price of a full fence."""
        return self.name.startswith(("lock", "xchg", "mfence"))


def instructions_of(body: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of a function's assembly (AT&T), and the line of each label."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for number, line in enumerate(body.splitlines()):
        text = line.split("#")[0].strip()
        if label := re.match(r"^(\.?\w+):", text):
            labels[label[1]] = number
        elif text and not text.startswith("."):
            name, _, operands = text.partition("\t") if "\t" in text else text.partition(" ")
            instructions.append(Instruction(number, name, operands.strip()))
    return instructions, labels


def loops_of(instructions: list[Instruction], labels: dict[str, int]) -> list[list[Instruction]]:
    """What lies between each jump backwards and the label that it goes to."""
    found = []
    for jump in instructions:
        start = labels.get(jump.operands)
        if jump.name.startswith("j") and start is not None and start <= jump.line:
            found.append([instruction for instruction in instructions if start < instruction.line <= jump.line])
    return found


def assembly_of(kernel: Any) -> str:
    """The assembly of a numba kernel, without its wrapper for Python."""
    (text,) = kernel.inspect_asm().values()
    functions = re.findall(r"^(_ZN\w+):\n(.*?)^\.Lfunc_end", text, flags=re.DOTALL | re.MULTILINE)
    name = kernel.py_func.__name__
    (body,) = [body for symbol, body in functions if name in symbol and "cpython" not in symbol]
    return body
