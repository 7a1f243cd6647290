# Every target sets up what it needs on a fresh machine: a virtual environment from hash-locked
# requirements, then the command. Nothing outside this folder is touched.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test docs lint format lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements/lock.txt requirements/bootstrap.txt pyproject.toml
	@echo "setting up $(VENV) (once; downloads torch, a few gigabytes with its GPU libraries)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Poise needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install -q --require-hashes -r requirements/bootstrap.txt; then \
	  $(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements/lock.txt requirements/bootstrap.txt; \
	else \
	  $(BIN)/python -m pip install -q --require-hashes -r requirements/lock.txt; \
	fi
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## train every method on real CIFAR-100-LT features and print the table
	$(BIN)/poise demo

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadscope -q

docs: $(READY)  ## build the documentation into build/docs; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

lint: $(READY)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)  ## resolve the requirements anew
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --extra dev --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements/lock.txt

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist docs/gallery docs/generated docs/methods
