# What a person or CI calls. `make` alone lists the targets. Needed: Python 3.11+, a Rust toolchain, a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := python/interlane/_native.abi3.so
RUST := Cargo.toml Cargo.lock $(wildcard .cargo/config.toml) $(shell find rust -name '*.rs' -o -name Cargo.toml)
INTERLANE := $(BIN)/interlane
TRAFFIC := examples/traffic
RELAYED := run

.DEFAULT_GOAL := help
.PHONY: help build run test chaos simulation test-tiers test-aarch64 constant-time peers lint bench wheel clean
.DELETE_ON_ERROR:

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | awk -F'|' '{ printf "make %-14s %s\n", $$1, $$2 }'

run: $(NATIVE) ## relay the recorded traffic of deployed peers, from a fresh store each time
	@rm -rf $(RELAYED)
	@mkdir $(RELAYED)
	@chmod 700 $(RELAYED)
	@$(INTERLANE) account import $(TRAFFIC)/accounts.json --store $(RELAYED)/gateway.db
	@$(INTERLANE) relay $(TRAFFIC)/events.jsonl --output $(RELAYED)/answers.jsonl --store $(RELAYED)/gateway.db \
		--batch 250 --show 16
	@echo 'The answers are in $(RELAYED)/answers.jsonl; next: $(INTERLANE) sessions --store $(RELAYED)/gateway.db'

build: $(NATIVE) ## the extension module, in .venv

test: lint peers ## lint, the Rust tests, the Python tests with live peers
	cargo test --release --workspace
	$(BIN)/pytest -q

chaos: $(NATIVE) peers ## cut the power, kill busy gateways and primaries, for some half an hour, with live peers at the other end
	INTERLANE_CHAOS=4 cargo test --release -p interlane --lib store::sqlite -- --nocapture
	INTERLANE_KILLS=400 $(BIN)/pytest -q -s tests/test_kills.py
	INTERLANE_FAILOVERS=50 cargo test --release -p interlane --test postgres primary_dies -- --nocapture
	$(MAKE) simulation

simulation: ## 1,000,000 faults in simulated histories; INTERLANE_FAULTS, INTERLANE_SEED
	INTERLANE_FAULTS=$${INTERLANE_FAULTS:-1000000} cargo test --release -p interlane --lib simulation::histories -- --nocapture

test-tiers: $(INSTALLED) ## the Rust tests on older x86-64 CPUs, under QEMU
	$(BIN)/python tests/tiers/x86.py

# Under QEMU, so no part of `make test`. Beside the wheels it takes some 45 minutes of one core: 12 to build the tests, 6 a tier
# (three tiers; the kernels' tests are most of each), 13 for the Python tests.
test-aarch64: wheel ## the aarch64 wheel and the Rust tests on aarch64's tiers, under QEMU
	$(BIN)/python tests/tiers/aarch64.py test dist/interlane-*aarch64.whl

# Two builds of their own, of minutes each: no part of `make test`.
constant-time: ## secrets followed through kernels and engine, under memcheck and MSan: a table
	$(PYTHON) tests/constant_time/run.py

peers: $(INSTALLED) ## the live test peers that this machine can run
	$(BIN)/python tests/peers/setup.py

lint: $(NATIVE) ## formats, clippy, ruff, mypy, stubs, layers, licences
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --release --manifest-path benches/allocations/Cargo.toml --target-dir target -- -D warnings
	$(BIN)/python tests/tiers/aarch64.py check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd python && $(abspath $(BIN))/python -m mypy.stubtest interlane \
		--mypy-config-file ../pyproject.toml --allowlist stubtest-allow.txt
	$(BIN)/pytest -q tests/test_layers.py
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --all-features check bans licenses sources; \
	else \
		echo 'licences: left out, cargo-deny is not installed (cargo install --locked cargo-deny)'; \
	fi

bench: $(NATIVE) peers ## the benchmark suite: a table, a plot, benches/results.json; PEERS=native adds a Rust peer
	$(INTERLANE) bench $(if $(PEERS),--peers=$(PEERS))

# Its own environment: what is in .venv must not be what makes it work.
wheel: $(INSTALLED) ## manylinux2014 wheels of this machine and aarch64, audited, tried in a clean environment
	rm -rf dist
	$(BIN)/pip install -q -r requirements-wheel.lock
	PATH="$(abspath $(BIN)):$$PATH" maturin build --release --locked --compatibility manylinux2014 --zig --out dist
	$(PYTHON) -m venv dist/clean
	dist/clean/bin/pip install -q dist/interlane-*.whl
	PATH="$(abspath $(BIN)):$$PATH" python tests/tiers/aarch64.py wheel dist
	for wheel in dist/interlane-*.whl; do \
		$(BIN)/auditwheel show $$wheel && $(BIN)/abi3audit --strict $$wheel || exit 1; \
	done
	dist/clean/bin/python -I tests/smoke.py
	dist/clean/bin/interlane --version

clean: ## removes what make made, test peers too
	rm -rf $(VENV) target dist $(RELAYED) $(NATIVE) tests/peers/*/node_modules tests/peers/go/peer
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks

$(INSTALLED): requirements-dev.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interlane needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade 'pip>=25.1'
	$(BIN)/pip install -q -r requirements-dev.lock
	touch $@

# Installed editable: the module lies in python/interlane, where git ignores it.
$(NATIVE): $(RUST) pyproject.toml $(INSTALLED)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
	touch $@
