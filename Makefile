# Every target installs what it needs. Variables you may set:
#   NODES=2                  a second node (local cluster)
#   TENURE_TEST_KUBECONFIG   use this cluster instead of making one
#   TENURE_CACHE             where binaries, images and packages are kept between runs
#   TENURE_STORM_SEED        kill again as the storm of this seed did
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=operator/src:runtime-image/src:tests $(BIN)/python
PYTEST := PYTHONPATH=operator/src:runtime-image/src:tests $(BIN)/python -m pytest
CLUSTER := $(RUN) -m cluster
NODES ?= 1
LOCK := $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## Install the development packages into .venv

$(VENV)/.installed: tests/requirements.txt
	@echo "installing the development packages into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: set PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

demo: cluster images ## Tell the whole story on a real cluster: converse, kill the pod, converse on
	@$(RUN) -m demo

test: lint unit e2e ## Run everything that CI runs

lint: venv ## Check style, types, layers and generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy operator/src runtime-image/src tests
	@PYTHONPATH=operator/src:runtime-image/src $(BIN)/lint-imports --no-cache

unit: venv binaries ## Run the unit tests
	@$(PYTEST) tests/unit

e2e: cluster images ## Run the end-to-end tests on a real cluster
	@$(PYTEST) tests/e2e

soak: cluster images ## Run storms and soaks in full
	@TENURE_SOAK=1 $(PYTEST) -m soak tests

bench: cluster images ## Measure, each figure against a baseline of the same run; JSON in build/bench
	@$(RUN) -m bench

generate: venv ## Write CRDs and the API reference from the models
	@$(RUN) -m tenure_api.crdgen crds charts/tenure/files/crds
	@$(RUN) -m tenure_api.docgen docs/api-reference.md

lock: venv ## Pin what pyproject.toml asks for, with hashes (UPGRADE=--upgrade takes newer versions)
	@$(BIN)/pip install --quiet uv
	@$(LOCK) --python-version 3.11 --extra operator --extra gateway pyproject.toml -o operator/requirements.txt
	@$(LOCK) --python-version 3.11 --extra runtime pyproject.toml -o runtime-image/requirements.txt
	@$(LOCK) --python-version 3.11 --all-extras --group dev pyproject.toml -o tests/requirements.txt
	@for double in scripted_model http_api mcp_server; do \
		(cd tests/doubles/$$double && $(CURDIR)/$(LOCK) --python-version 3.11 requirements.in -o requirements.txt); done
	@cd examples/demo-model && $(CURDIR)/$(LOCK) --no-deps requirements.in -o requirements.txt

binaries: venv ## Build the cluster's programs into the cache (nothing if they are there)
	@$(CLUSTER) binaries

images: venv ## Build the images and load them into the cluster
	@$(CLUSTER) build-images
	@$(CLUSTER) load

cluster: venv ## Bring up a real cluster, or find the one that is up
	@NODES=$(NODES) $(CLUSTER) up

cluster-down: venv ## Take the cluster down and leave nothing behind
	@$(CLUSTER) down

.PHONY: help venv demo test lint unit e2e soak bench generate lock binaries images cluster cluster-down
