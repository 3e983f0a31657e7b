"""The cffi recipe of `shm._shim`: layout.h for the types, then parts, each a header that both C and cffi read and its source.

The sources are compiled as one file, so a part's static names must differ from the others'.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

PARTS = [
    ("shim.h", "shim.c"),
    ("memory.h", "memory.c"),
    ("face.h", "face.c"),
]


def text(name: str) -> str:
    """A source without the one line that cffi does not understand and does not need."""
    return (HERE / name).read_text().replace("#pragma once\n", "")


ffi = FFI()
ffi.cdef(text("layout.h") + "".join(text(header) for header, _ in PARTS))
ffi.set_source(
    "shm._shim",
    "".join(f'#line 1 "shm/{source}"\n{text(source)}' for _, source in PARTS),
    include_dirs=[str(HERE)],
    depends=[str(path) for path in sorted(HERE.glob("*.[ch]"))],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
