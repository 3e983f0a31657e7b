# `make` lists the targets. Everything is set up on first use: a .venv, pinned dependencies, the compiled layouts.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check

LAYOUTS := $(wildcard shm/*.h shm/*.c) shm/shim_build.py engine/layout_build.py engine/messages/messages.h engine/runtime/control.h engine/risk/risk.h engine/gateway/open_orders.h

.DEFAULT_GOAL := help
.PHONY: bench-matching bench-risk risk-table help build run test lint format perf bench-ring bench-book bench-receive warm proof soak clean tools-present

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(VENV)/ready  ## set up only: .venv, dependencies, compiled layouts

run: $(VENV)/ready  ## trade 10 s on the embedded exchange, and report
	$(BIN)/tickpath run

# Compiled first, if nothing is in the way: two workers would each compile what neither finds in the cache.
WORKERS ?= 2
test: $(VENV)/ready-dev  ## run the tests, two at a time, and then those that want the whole machine (WORKERS=0: one at a time)
	-$(BIN)/tickpath warm
	$(BIN)/python -m pytest -n $(WORKERS) -m "not machine"; shared=$$?; $(BIN)/python -m pytest -n 0 -m machine && exit $$shared

lint: $(VENV)/ready-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-dev  ## let ruff put the source in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

warm: $(VENV)/ready  ## compile every kernel ahead
	$(BIN)/tickpath warm

perf: bench-ring  ## what can be measured without a file: the ring

bench-ring: $(VENV)/ready-dev  ## the ring beside a bare ping-pong in C
	$(BIN)/python perf/bench_ring.py --json -

bench-book: $(VENV)/ready-dev  ## the book beside itch-book: make bench-book FILE=day.itch
	$(BIN)/python perf/bench_book.py $(FILE) --json -

bench-risk: $(VENV)/ready-dev  ## the risk gate: all checks on, and what each costs
	$(BIN)/python perf/bench_risk.py

bench-matching: $(VENV)/ready-dev  ## the matching core beside a std::map engine in C++, on the public challenge's kind of flow
	$(BIN)/python perf/bench_matching.py --json -

risk-table: $(VENV)/ready-dev  ## which test shows which risk control, from running them
	$(BIN)/python -m tools.risk_table

bench-receive: $(VENV)/ready-dev  ## packet to quote beside a bare recvmmsg in C: make bench-receive FILE=day.itch
	$(BIN)/python perf/bench_receive.py $(FILE) --json -

proof:  ## at length: the ring's models (apt-get install relacy-dev spin), seeds of faults and simulations, fuzzing
proof: $(VENV)/ready-dev
	TICKPATH_PROOF=long $(BIN)/python -m pytest -s tests/test_proof.py tests/test_feed_faults.py tests/test_feed_processes.py tests/test_fuzz.py tests/test_simulation.py tests/test_live.py

SECONDS_OF_SOAK ?= 600
soak:  ## every face of the ring at either end, killed and stopped at random: make soak SECONDS_OF_SOAK=3600
soak: $(VENV)/ready-dev
	$(BIN)/python perf/soak.py --seconds $(SECONDS_OF_SOAK)

clean:  ## remove the .venv and what was built
	rm -rf $(VENV) build *.egg-info shm/*.so engine/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: requirements.txt setup.py pyproject.toml $(LAYOUTS) | tools-present
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

# Name everything that is missing at once, with the command that installs it.
tools-present:
	@missing=""; \
	command -v $(PYTHON) >/dev/null || missing="$$missing python3"; \
	command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"; \
	if command -v $(PYTHON) >/dev/null; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "tickpath needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.11 ..." >&2; exit 1; }; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	  $(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || missing="$$missing python3-dev"; \
	fi; \
	if [ -n "$$missing" ]; then echo "missing:$$missing; install with: apt-get install$$missing" >&2; exit 1; fi

install:  ## into PREFIX (/usr/local), config into /etc/tickpath; DESTDIR for packages
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSCONFDIR="$(SYSCONFDIR)" PYTHON="$(PYTHON)" tuning/boot/install.sh install

uninstall:  ## take back what install put there
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSCONFDIR="$(SYSCONFDIR)" tuning/boot/install.sh uninstall

.PHONY: install uninstall
