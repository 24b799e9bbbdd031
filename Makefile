# Every command of the project. A target's line after ## is what `make` lists; each ends with one line that says how it
# went: `NAME: N passed, N failed, N skipped`. To add a test that every change must pass, write its target and add it to
# TEST_STEPS.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TEST_STEPS := lint unit torture-quick conformance-quick conformance-virtio-quick e2e-quick check-macos

.PHONY: help
help: ## list these targets
	@awk -F': *## *|:.*## *' '/^[a-z0-9-]+:.*## / { printf "%-26s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ferryfs into target/release
	@tests/tools/need cc
	@cargo build --release --locked --workspace --bins && echo "build: target/release/ferryfs is ready"

.PHONY: demo
demo: build ## share a directory with a virtual machine and show both sides, in seconds
	@tests/e2e/demo

.PHONY: shell
shell: build ## a virtual machine to type in, with DIR (here: .) mounted on /share
	@tests/e2e/shell "$(or $(DIR),.)"

.PHONY: test
test: ## all that a change must pass: lint, unit, torture-quick, conformance(-virtio)-quick, e2e-quick, check-macos
	@tests/tools/test $(TEST_STEPS)

.PHONY: lint
lint: ## format, clippy, documentation, shell scripts, licences and advisories of the dependencies
	@tests/tools/lint

.PHONY: unit
unit: ## unit, integration and documentation tests
	@tests/tools/unit

.PHONY: conformance
conformance: build ## pjdfstest, fsx and stress-ng over four file systems (40 minutes); writes docs/conformance.md
	@tests/conformance/run $(ARGS)

.PHONY: conformance-quick
conformance-quick: build ## the same suites over ext4, shortened
	@tests/conformance/run --quick $(ARGS)

.PHONY: conformance-virtio
conformance-virtio: build ## conformance through virtqueues, by ferryfs-bridge; writes docs/conformance-virtio.md
	@tests/conformance/run --kind bridge --report docs/conformance-virtio.md $(ARGS)

.PHONY: conformance-virtio-quick
conformance-virtio-quick: build ## the same through virtqueues over ext4, shortened
	@tests/conformance/run --kind bridge --quick $(ARGS)

.PHONY: torture
torture: build ## mutated requests, chains, rings and messages against the live daemon (10 minutes, 5 million)
	@tests/tools/torture $(ARGS)

.PHONY: torture-quick
torture-quick: build ## the same for less than a minute
	@tests/tools/torture --quick $(ARGS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS (60); needs a nightly compiler
	@tests/tools/fuzz $(ARGS)

.PHONY: e2e
e2e: build ## scenarios in stock guests: kernels, queues, cache modes, failures (30 minutes); writes docs/testing.md
	@tests/e2e/run $(ARGS)

.PHONY: e2e-quick
e2e-quick: build ## the short scenarios on two kernels, two guests at once, and failures (10 minutes at most)
	@tests/e2e/run --level quick $(ARGS)

.PHONY: e2e-full
e2e-full: build ## every configuration, and fsx and fio for longer (hours); writes docs/testing.md
	@tests/e2e/run --level full $(ARGS)

.PHONY: check-macos
check-macos: ## type-check and link the library for macOS on Apple silicon
	@tests/tools/check-macos

PREFIX ?= /usr/local
BINDIR := $(PREFIX)/bin
DATADIR := $(PREFIX)/share
UNITDIR := $(PREFIX)/lib/systemd/system

.PHONY: install
install: ## install the daemon, libvirt's description and the systemd unit (PREFIX, DESTDIR)
	@test -x $(TARGET_DIR)/release/ferryfs || { echo "install: run 'make build' first" >&2; exit 1; }
	install -D -m 755 $(TARGET_DIR)/release/ferryfs $(DESTDIR)$(BINDIR)/ferryfs
	install -D -m 755 packaging/ferryfs-events $(DESTDIR)$(BINDIR)/ferryfs-events
	install -d $(DESTDIR)$(DATADIR)/qemu/vhost-user $(DESTDIR)$(UNITDIR)
	sed 's|"/usr/libexec/ferryfs"|"$(BINDIR)/ferryfs"|' packaging/50-ferryfs.json \
		> $(DESTDIR)$(DATADIR)/qemu/vhost-user/50-ferryfs.json
	sed 's|@BINDIR@|$(BINDIR)|' packaging/ferryfs@.service > $(DESTDIR)$(UNITDIR)/ferryfs@.service
	@echo "install: ferryfs is in $(DESTDIR)$(BINDIR)"

.PHONY: bench
bench: build ## speed beside virtiofsd, workload by workload in turn (15 minutes; ARGS='--quick getattr'); writes docs/performance.md
	@tests/tools/need strace; . tests/tools/lib.sh && mkdir -p docs && \
	    target/release/ferryfs-bench --peer "$$(command -v virtiofsd || echo none)" \
	    $(if $(ARGS),$(ARGS),--report docs/performance.md)

.PHONY: bench-guest
bench-guest: build ## the requests that real programs make in a guest, counted by its kernel (4 minutes)
	@tests/e2e/requests $(ARGS)

.PHONY: bench-scale
bench-scale: build ## what a thousand to a million names cost: CPU time, memory, descriptors; writes docs/performance.md
	@target/release/ferryfs-bench --scale 1000,10000,100000,1000000 --report docs/performance.md $(ARGS)

.PHONY: bench-peer
bench-peer: ## install virtiofsd, which bench and bench-apps compare with, into target/tools
	@tests/tools/need cc libcap-ng libseccomp virtiofsd && echo "bench-peer: virtiofsd is ready"

.PHONY: coherence
coherence: build ## the coherence checker over its whole matrix; ARGS="--steps N --seed N --modes M --peer VIRTIOFSD"
	@tests/coherence/run $(ARGS)

.PHONY: coherence-counts
coherence-counts: build ## requests by opcode for everyday commands, second pass; ARGS="--dirs N --peer VIRTIOFSD"
	@tests/coherence/counts $(ARGS)

.PHONY: bench-micro
bench-micro: ## micro-benchmarks: parser, replies, packing of listings, the table of inodes under threads
	@cargo bench --locked --bench protocol --bench inodes -- $(ARGS) && echo "bench-micro: done"

.PHONY: bench-apps
bench-apps: build ## real programs through ferryfs-bridge on both daemons: wall time, CPU time, requests (ARGS='--files 2000 find')
	@tests/tools/need fio sqlite3; tests/tools/bench-apps $(ARGS)
