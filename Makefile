# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
SHELL := bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CLUSTER_CLI := $(PYTHON) tests/cluster/localcluster_cli.py
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lora-operator
SOURCES := crds operator jobs tests examples bench

.DEFAULT_GOAL := help
.PHONY: help ready venv generate lint unit integration e2e test test-faults test-mutants images cluster-up cluster-down demo demo-down tiny-model lock cluster-tools

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

venv: $(VENV)/.installed ## .venv with everything for development (5 GB, about a minute)

# uv comes from a hash-pinned lock too; bytecode is compiled once, not at each start of torch.
$(VENV)/.installed: requirements/dev.lock requirements/build.lock pyproject.toml
	@echo "installing .venv"
	@test -x $(CACHE)/uv/bin/uv || { $(PYTHON) -m venv $(CACHE)/uv && \
	  $(CACHE)/uv/bin/pip install -q --require-hashes -r requirements/build.lock; }
	@test -x $(BIN)/python || $(CACHE)/uv/bin/uv venv -q --python $(PYTHON) $(VENV)
	@UV_PYTHON=$(VENV) $(CACHE)/uv/bin/uv pip sync -q --require-hashes --compile-bytecode requirements/dev.lock
	@UV_PYTHON=$(VENV) $(CACHE)/uv/bin/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

generate: venv ## write the CRD, the chart's copy and docs/api.md from crds/lora_api, the chart's README, recorded objects
	@$(BIN)/python -m lora_api.generate
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m chart
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m recorded_objects

lock: venv ## resolve the hash-pinned requirement files again
	@bash requirements/lock.sh $(CACHE)/uv/bin/uv

lint: venv ## format, lint, types, layers
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/mypy $(wildcard $(SOURCES))
	$(BIN)/lint-imports

unit: venv ## pure tests, property tests, contract tests
	$(BIN)/pytest tests/unit tests/contract

integration: venv ## against a real API server and a real S3 server; no root
	$(BIN)/pytest tests/integration

e2e: venv ## the main job on the local cluster, with real stages (root, Linux)
	$(BIN)/pytest tests/e2e

test: ready lint ## everything that is checked, on a fresh machine too
	$(BIN)/pytest

test-faults: ready ## every fault at every write of the operator, and each event lost once (half an hour)
	$(BIN)/pytest tests/faults -m "not mutants"

test-mutants: ready ## wrong operators, and what noticed each
	$(BIN)/pytest tests/faults/test_mutants.py -m mutants -rP

demo: ready ## the main job from a clean clone: good adapter, wrong adapter, outlier base
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python examples/demo.py

# The cluster's programs are built while .venv is installed, where a local cluster can run at all.
LOCAL_CLUSTER := $(shell test $$(id -u) = 0 -a "$$(uname)" = Linux -a "$(CLUSTER)" != current && echo yes)
ready:
	@$(MAKE) -j2 --no-print-directory $(if $(LOCAL_CLUSTER),cluster-tools) venv

tiny-model: venv ## train the demo's model (three minutes), for examples/local.yaml: no root, no cluster
	@mkdir -p out
	@PYTHONPATH=tests/support $(BIN)/python -c "import tiny_model; print(tiny_model.ensure().folder)" | \
	  tail -1 | xargs -I{} ln -sfn {} out/tiny-model

demo-down: cluster-down ## remove what the demo left up

cluster-tools:
	@$(CLUSTER_CLI) build

cluster-up: cluster-tools ## a real Kubernetes on this machine (root, Linux)
	@$(CLUSTER_CLI) up

cluster-down: ## stop it
	@$(CLUSTER_CLI) down
