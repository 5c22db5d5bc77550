# AgentCom: every command that a person or CI needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HUB_CONFIG ?= deploy/config/hub.toml
SIDECAR_CONFIG ?= deploy/config/sidecar.toml
DASHBOARD_CONFIG ?= deploy/config/dashboard.toml
# Most tests wait for processes, and some need a core for themselves: two files at a time on any machine.
WORKERS ?= 2

CODE := $(wildcard kit hub sidecar cli dashboard tools deploy tests)
TYPED := $(wildcard kit hub sidecar cli dashboard tools deploy/demo tests)

.PHONY: help setup gen gen-check fmt lint type test test-unit test-e2e faults demo bench sim sim-twins soak build docs docs-check check run-hub run-sidecar run-dashboard clean

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv and install everything (once; again when pyproject.toml changes)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: Python 3.11 or newer is needed, $(PYTHON) is older (choose another: make setup PYTHON=python3.11)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); bash tools/venv.sh $(PYTHON) $(VENV); }
	@echo "setup: installing into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

gen: setup ## Write gen/ from protos/
	@$(BIN)/python tools/gen.py write

gen-check: setup ## Fail when gen/ is not what protos/ says
	@$(BIN)/python tools/gen.py check

fmt: setup ## Format the Python code and order its imports
	@$(BIN)/ruff check --quiet --fix --select I $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

lint: setup ## Ruff (rules and format), buf lint, buf breaking against main
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --quiet --check $(CODE)
	@$(BIN)/python tools/gen.py lint

type: setup ## mypy, strict
	@$(BIN)/mypy --no-error-summary $(TYPED)

test: setup ## Set-up and all tests, two files at a time (WORKERS=0: one after the other)
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

test-unit: setup ## The fast tests: rules, kit, layers
	@$(BIN)/pytest -q tests/unit

test-e2e: setup ## The tests with real processes
	@$(BIN)/pytest tests/e2e

faults: setup ## Try faults on real processes (QUICK=1: the short sizes; ARGS="--only hub-kill --seed 7": one of them)
	@$(BIN)/python -m tests.faults --twins $(if $(QUICK),--quick) $(ARGS)

demo: setup ## A hub, two sidecars, a goal file: from nothing to merged work
	@$(BIN)/python deploy/demo/run.py

bench: setup ## Measure, side by side with the bare floor
	@$(BIN)/python -m tests.bench

sim: setup ## Simulate: 500 seeds (SEEDS=n START=n), or one with its trace (SEED=n)
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)) $(if $(START),--start $(START))) $(if $(HOURS),--hours $(HOURS)) $(if $(JOBS),--jobs $(JOBS))

sim-twins: setup ## The simulator on the product with one guard taken out: each must be found
	@$(BIN)/python -m tests.sim --twins

soak: setup ## Load with mishaps for 10 minutes (MINUTES=n, ARGS="--seed 7"): does anything grow?
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

build: setup ## One executable file for each node and the CLI, in dist/ (docs/deployment.md says what a target needs)
	@$(BIN)/python tools/build.py

docs: setup ## Write the generated pages of docs/
	@$(BIN)/python tools/docs.py write

docs-check: setup ## Fail when a generated page is stale
	@$(BIN)/python tools/docs.py check

check: gen-check lint type test-unit docs-check ## What every change must pass

run-hub: setup ## Run a hub in the foreground (HUB_CONFIG=file)
	@$(BIN)/python -m hub $(if $(wildcard $(HUB_CONFIG)),--config $(HUB_CONFIG))

run-sidecar: setup ## Run a sidecar in the foreground (SIDECAR_CONFIG=file)
	@$(BIN)/python -m sidecar $(if $(wildcard $(SIDECAR_CONFIG)),--config $(SIDECAR_CONFIG))

run-dashboard: setup ## Run the dashboard in the foreground (DASHBOARD_CONFIG=file)
	@$(BIN)/python -m dashboard $(if $(wildcard $(DASHBOARD_CONFIG)),--config $(DASHBOARD_CONFIG))

clean: ## Remove everything that can be made again
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
