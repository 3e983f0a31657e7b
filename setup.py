"""Packages, the `tickpath` command, and the two compiled layouts; everything else is in pyproject.toml or the Makefile."""

from setuptools import find_packages, setup

setup(
    name="tickpath",
    version="0.1.0",
    description="A low-latency trading engine: shared-memory rings, numba kernels, Python strategies",
    python_requires=">=3.11",
    packages=find_packages(include=["shm*", "engine*", "tools*", "perf*"]),
    package_data={"shm": ["*.h", "*.c", "examples/*"], "engine": ["**/*.h", "**/*.toml", "**/*.c"], "perf": ["*.c"]},
    cffi_modules=["shm/shim_build.py:ffi", "engine/layout_build.py:ffi"],
    entry_points={"console_scripts": ["tickpath = tools.cli:main"]},
)
