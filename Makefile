# `make` alone lists the targets.
# ARGS goes to the program: make run ARGS="--attribute http.route --window 1m"

SHELL := /bin/bash
ARGS ?=
FUZZ_SECONDS ?= 60
SEEDS ?= 200
SEED ?=
# What the image is called, and what it is made on.
IMAGE ?= sheaf:dev
BASE_IMAGE ?= debian:bookworm-slim
# With quick, tests on Kubernetes that take minutes each are left out.
E2E_GROUP ?= all

# Cargo's own variable says where things are built; ./target otherwise.
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(PATH):$(HOME)/.cargo/bin
NEXTEST := $(shell PATH='$(PATH)' command -v cargo-nextest)
TEST := $(if $(NEXTEST),cargo nextest run,cargo test)

.PHONY: help setup run demo cluster crds image chart e2e test bench fuzz sim planted verify fix

help: ## List the targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: ## Install what the build needs beyond Rust, or say what to install
	@scripts/setup

run: setup ## Start a node in ./data that prints its windows for people
	cargo build --release --package sheaf-node
	@scripts/run $(TARGET)/release/sheaf-node $(ARGS)

demo: setup ## Feed a node of its own, and compare what it prints with what it must
	cargo build --release --package sheaf-node --package sheaf
	@scripts/demo $(TARGET)/release

cluster: setup ## Let three nodes count together, kill one, and compare
	cargo build --release --package sheaf-node --package sheaf
	@scripts/cluster $(TARGET)/release

crds: setup ## Write the CustomResourceDefinition into crds/ and into the chart
	cargo run --package sheaf-operator --bin crdgen

image: setup ## Build the container image IMAGE on BASE_IMAGE
	cargo build --release --package sheaf-node --package sheaf --package sheaf-operator
	tar --create --directory $(TARGET)/release sheaf-node sheaf sheaf-operator --directory $(CURDIR) Dockerfile | \
	  docker build --tag $(IMAGE) --build-arg BASE=$(BASE_IMAGE) -

e2e: image ## Test on a real Kubernetes, which Docker and kind make: ARGS names tests
	@E2E_GROUP=$(E2E_GROUP) scripts/e2e $(IMAGE) $(ARGS)

chart: ## Lint the chart and render it with each file of charts/sheaf/ci
	@scripts/chart

test: setup ## Run all tests
	$(TEST) --workspace --features sheaf-node/failpoints

bench: setup ## Run the benchmarks (docs/performance.md)
	cargo bench --package sheaf-node --bench kernel $(ARGS)
	cargo build --release --package sheaf-node --package sheaf
	@scripts/bench $(TARGET)/release
	@scripts/bench-cluster $(TARGET)/release
	cargo build --release --package sheaf-node --example chunks
	@scripts/bench-files $(TARGET)/release

# cargo-fuzz sets RUSTFLAGS, which replace those of .cargo/config.toml; with other flags, or
# with a sanitizer, RocksDB would be compiled anew. What is fuzzed is safe Rust: a panic is
# what there is to find, and cargo-fuzz turns debug assertions on.
FUZZ_FLAGS := $(shell sed -n 's/^rustflags = .*"\(target-feature=[^"]*\)".*/-C \1 --cfg tokio_unstable/p' .cargo/config.toml)

fuzz: setup ## Run each fuzz target for a minute
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	set -e; for target in $$(cargo fuzz list); do \
	  mkdir -p fuzz/corpus/$$target fuzz/seeds/$$target; \
	  RUSTFLAGS='$(FUZZ_FLAGS)' RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS); \
	done

# Simulated nodes are as fast as the code is: optimised a little they take a fifth of the time.
# What they spill is not worth a real disk.
SIM := TMPDIR=$(or $(wildcard /dev/shm),/tmp) \
  cargo --config 'profile.dev.package.sheaf-node.opt-level=1' \
  test --package sheaf-node --features failpoints --test sim --

sim: setup ## Simulate SEEDS clusters with all faults at once, or repeat the one of a SEED
ifeq ($(SEED),)
	SEEDS=$(SEEDS) $(SIM) --nocapture
else
	SEED=$(SEED) $(SIM) --nocapture --ignored --exact one_seed
endif

planted: setup ## Plant each bug, or that BUG, in the node, and see that the simulation finds it
	$(if $(BUG),BUG=$(BUG)) $(SIM) --nocapture --ignored --exact every_planted_bug_is_found

# Changes no source and no lock file; exactly what CI runs.
verify: setup ## Check format, lints and tests, simulate 200 clusters, and check the chart
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- --deny warnings
	$(TEST) --workspace --features sheaf-node/failpoints --locked
	@$(MAKE) --no-print-directory sim
	@if command -v helm >/dev/null; then scripts/chart; \
	  else echo "chart: there is no helm here, so the chart is not checked"; fi

fix: setup ## Format, and apply what clippy suggests
	cargo fmt --all
	cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged
	cargo fmt --all
