# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
SHELL := bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CLUSTER_CLI := $(PYTHON) tests/cluster/localcluster_cli.py
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lora-operator
SOURCES := crds operator jobs cli tests examples bench deploy docs hatch_build.py

# A file's tests share their servers, so a file stays on one core; the local cluster is one for all.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*/\1/p' $(MAKEFILE_LIST))

help: ## show this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 16

venv: $(VENV)/.installed ## .venv with everything for development (5 GB, about a minute)

# uv comes from a hash-pinned lock too; bytecode is compiled once, not at each start of torch.
$(VENV)/.installed: requirements/dev.lock requirements/build.lock pyproject.toml hatch_build.py jobs/lora_jobs/merging/addition.c
	@echo "installing .venv"
	@test -x $(CACHE)/uv/bin/uv || { $(PYTHON) -m venv $(CACHE)/uv && \
	  $(CACHE)/uv/bin/pip install -q --require-hashes -r requirements/build.lock; }
	@test -x $(BIN)/python || $(CACHE)/uv/bin/uv venv -q --python $(PYTHON) $(VENV)
	@UV_PYTHON=$(VENV) $(CACHE)/uv/bin/uv pip sync -q --require-hashes --compile-bytecode requirements/dev.lock
	@UV_PYTHON=$(VENV) $(CACHE)/uv/bin/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

generate: venv ## write the CRD, the chart's copy and docs/api.md from crds/lora_api, the chart's README, recorded objects, docs/reliability.md
	@$(BIN)/python -m lora_api.generate
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m chart
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m recorded_objects
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python -m reliability

lock: venv ## resolve the hash-pinned requirement files again
	@bash requirements/lock.sh $(CACHE)/uv/bin/uv

lint: venv ## format, lint, types, layers
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/mypy $(wildcard $(SOURCES))
	$(BIN)/lint-imports

unit: venv ## pure tests, property tests, contract tests
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit tests/contract

integration: venv ## against a real API server and a real S3 server; no root
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/integration

FUZZ_SECONDS ?= 60
fuzz: venv ## coverage-guided fuzzing of every file that others write, FUZZ_SECONDS for each kind
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz $(FUZZ_SECONDS)

BENCH ?=
bench-data: venv ## the bars of merge, quantize and transfers, side by side; BENCH="--size 0.3" for a small run
	PYTHONPATH=$(CURDIR)/tests/support $(abspath $(BIN))/python bench/data/bench_data.py $(BENCH)

sbom: venv ## what each image holds, as SPDX, into out/sbom
	$(BIN)/python deploy/sbom.py out/sbom

# No test: it asks PyPI what is known of each version. One that cannot be asked for is an error, not silence.
audit: venv ## known vulnerabilities of what the locks pin; needs the network
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
	  $(addprefix -r ,$(sort $(wildcard requirements/*.lock)))

bench-operator: venv ## the operator's bars on a real API server; BENCH="--objects 50" for a small run
	PYTHONPATH=tests/support:tests/cluster $(BIN)/python bench/operator/bench_operator.py $(BENCH)

bench-soak: venv ## memory, tasks and files of the operator while objects come and go; BENCH="--minutes 60"
	PYTHONPATH=tests/support:tests/cluster $(BIN)/python bench/operator/bench_soak.py $(BENCH)

dashboard-picture: venv ## docs/images/dashboard.svg anew, from a real operator's metrics (six minutes)
	PYTHONPATH=tests/support:tests/cluster $(BIN)/python bench/operator/draw_dashboard.py docs/images/dashboard.svg

bench-verdict: venv ## what the speed gates say where the truth is known; BENCH="--runs 2 --slowed 1"
	PYTHONPATH=tests/support $(BIN)/python bench/verdict/bench_verdict.py $(BENCH)

bench-verify: venv ## how often verify catches another model, and what it refuses wrongly; BENCH="--runs 1"
	PYTHONPATH=tests/support $(BIN)/python bench/verify/bench_verify.py $(BENCH)

e2e: venv ## the main job on the local cluster, with real stages (root, Linux)
	$(BIN)/pytest tests/e2e

# The pods of the local cluster leave the cores idle for most of the time: the rest runs beside it, gives
# way, and is told when it has ended.
test: ready lint ## everything that is checked, on a fresh machine too
	@$(MAKE) -j2 --no-print-directory test-on-cluster test-beside-it

test-on-cluster: ready
	$(BIN)/pytest tests/cluster tests/e2e --durations=15

BESIDE := out/test-beside-it.log
test-beside-it: ready
	@mkdir -p out; echo "units, contracts, API server, faults: in $(BESIDE), shown at their end"
	@{ nice -n 5 $(BIN)/pytest $(SIDE_BY_SIDE) tests/unit tests/contract tests/integration && \
	  nice -n 5 $(BIN)/pytest tests/faults; } > $(BESIDE) 2>&1; ended=$$?; cat $(BESIDE); exit $$ended

test-faults: ready ## every fault at every write of the operator, and each event lost once (about an hour)
	$(BIN)/pytest tests/faults -m "not mutants"

test-mutants: ready ## wrong operators, and what noticed each
	$(BIN)/pytest tests/faults/test_mutants.py -m mutants -rP

demo: ready ## the main job from a clean clone: good adapter, wrong adapter, outlier base
	@PYTHONPATH=tests/support:tests/cluster $(BIN)/python examples/demo.py

# The cluster's programs are built while .venv is installed, where a local cluster can run at all.
LOCAL_CLUSTER := $(shell test $$(id -u) = 0 -a "$$(uname)" = Linux -a "$(CLUSTER)" != current && echo yes)
ready:
	@$(MAKE) -j2 --no-print-directory $(if $(LOCAL_CLUSTER),cluster-tools) venv

docs: venv ## the documentation as a site in out/site; a dead link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would hide dead links from strict, too
	@echo "out/site/index.html"

# No test of `make test`: Chromium comes from the system's packages, 400 MB that a build need not have.
report-screens: venv ## REPORT=folder of a report.json: check it in real Chromium, screens into out/screens
	@UV_PYTHON=$(VENV) $(CACHE)/uv/bin/uv pip install -q --group browser
	@PYTHONPATH=tests/support $(BIN)/python tests/support/report_screens.py $(REPORT) out/screens

tiny-model: venv ## train the demo's model (three minutes), for examples/local.yaml: no root, no cluster
	@mkdir -p out
	@PYTHONPATH=tests/support $(BIN)/python -c "import tiny_model; print(tiny_model.ensure().folder)" | \
	  tail -1 | xargs -I{} ln -sfn {} out/tiny-model

release: venv ## wheel, chart, manifests and checksums, into dist/
	@deploy/release.sh $(abspath $(BIN)/python) \
	  "$$(PYTHONPATH=tests/cluster $(PYTHON) -c 'from localcluster import tools; print(tools.ensure(tools.HELM))')/helm"

demo-down: cluster-down ## remove what the demo left up

cluster-tools:
	@$(CLUSTER_CLI) build

cluster-up: cluster-tools ## a real Kubernetes on this machine (root, Linux)
	@$(CLUSTER_CLI) up

cluster-down: ## stop it
	@$(CLUSTER_CLI) down
