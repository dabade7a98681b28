# Each target sets up what it needs the first time and nothing the second.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin

.PHONY: help venv demo test lint bench images cluster cluster-down generate constraints

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

venv: .venv/installed ## Make the virtual environment

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CryoMamba needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --build-constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: venv ## Segment a made-up tomogram with the demo model, start to finish
	$(BIN)/cryomamba demo

test: lint ## Lint, then all tests
	$(BIN)/python tools/cluster.py packages
	$(BIN)/python tools/cluster.py build
	$(BIN)/python tools/cluster.py load-images
	$(BIN)/python -m pytest --numprocesses 2

lint: venv ## Format, style, types, import directions, drift of generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint inference-image/Dockerfile server-image/Dockerfile
	$(BIN)/python crds/generate.py --check
	$(BIN)/python apiserver/generate.py --check
	$(BIN)/python charts/generate.py --check

bench: venv ## Measure against the alternatives
	@set -e; for benchmark in benchmarks/*.py; do $(BIN)/python -P $$benchmark; done

images: ## Build the container images, with Docker where it answers, else with buildah (BASE=IMAGE: on another base)
	@$(PYTHON) tools/cluster.py build-images $(if $(BASE),--base $(BASE))

cluster: ## Start a one-node Kubernetes for the tests and print its kubeconfig
	@$(PYTHON) tools/cluster.py up

cluster-down: ## Stop it
	@$(PYTHON) tools/cluster.py down

generate: venv ## Write the files that are generated from code
	$(BIN)/python crds/generate.py
	$(BIN)/python apiserver/generate.py
	$(BIN)/python charts/generate.py

constraints: ## Pin the newest versions of everything in constraints.txt
	printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --python-version 3.11 --universal --all-extras \
	  --no-emit-index-url --no-annotate --no-header --upgrade --output-file constraints.txt pyproject.toml -
