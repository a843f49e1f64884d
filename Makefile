# The two commands of the README, and the ones that engineers use. Each does its own set-up; a second run starts at once.
#
#   ARCHIVE=none        demo without Orthanc: the outbox holds what would be sent
#   CARGO_TARGET_DIR    respected everywhere
#   T='test(name)'      test: only these (a nextest filter expression)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: demo test test-long bench models-check lint fmt help setup setup-test

ARCHIVE ?= orthanc
T ?=

# .venv holds pip for the pinned wheels, the python peers and, where the machine has none, cargo-nextest.
# It comes last: pynetdicom brings an echoscu and a storescp too, and the tests mean DCMTK's.
export PATH := $(PATH):$(CURDIR)/.venv/bin
export FOVEA_OPENVINO_DIR ?= $(CURDIR)/runtime/openvino

TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS := -p fovead --bin fovead -p foveactl --bin foveactl -p fovea-worker --bin fovea-worker

# The demo is as optimised as a release but for link-time optimisation, which on two cores costs a newcomer minutes.
DEMO_PROFILE := --profile demo --config 'profile.demo.inherits="release"' --config 'profile.demo.lto="off"' --config 'profile.demo.debug=false'

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@scripts/setup-build.sh
	@scripts/fetch-samples.sh

setup-test: setup
	@scripts/setup-peers.sh

demo: setup ## Real pictures through the whole box, beside an archive (ARCHIVE=none goes without)
	@[ "$(ARCHIVE)" = none ] || scripts/setup-peers.sh archive
	@echo "build: compiling (a few minutes the first time)"
	@quiet=--quiet; [ ! -t 2 ] || quiet=; cargo build $$quiet --locked $(DEMO_PROFILE) $(PROGRAMS) -p fovea-tests --bin demo
	@$(TARGET)/demo/demo --archive $(ARCHIVE)

# One build of programs and tests together: the same features, so nothing is compiled twice.
test: setup-test ## Every test, against real peers (T='test(name)' picks some)
	cargo build --locked --workspace --bins --tests
	cargo nextest run --locked --workspace $(if $(T),-E '$(T)')

test-long: setup-test ## Those tests too that take a quarter of an hour, in full length: hundreds of kills, every power cut, a huge slide
	cargo build --locked --workspace --bins --tests
	@rm -f $(TARGET)/nextest/long/junit.xml
	@failed=0; FOVEA_TEST_LONG=1 cargo nextest run --locked --workspace --profile long --run-ignored all $(if $(T),-E '$(T)') || failed=$$?; \
	python3 scripts/long-tests.py $(TARGET)/nextest/long/junit.xml; exit $$failed

bench: setup-test ## Kernels, then the box beside its peers: one table with machine, commit, medians
	@scripts/setup-bench.sh
	cargo build --locked --release $(PROGRAMS) -p fovea-tests --bin bench
	cargo bench --locked -p fovea-kernels
	$(TARGET)/release/bench

models-check: setup ## Every bundle of the project proved on this machine, as before it serves; nothing is trained
	cargo build --locked $(PROGRAMS)
	$(TARGET)/debug/foveactl models check --runtime-dir "$$FOVEA_OPENVINO_DIR" image/models/*/bundle

lint: ## What CI holds: format and clippy without a warning
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Formats everything
	cargo fmt --all
