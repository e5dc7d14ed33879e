# `make train` and `make test` do all set-up themselves: they need Python >= 3.10, make and pip.
PYTHON ?= python3
BIN := .venv/bin
SHARED := -n auto --maxprocesses 4 --dist worksteal  # tests share the cores

.PHONY: help train test quick lint bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The exact versions need Python 3.11; on 3.10 pip finds the newest that still support it.
$(BIN)/.installed: pyproject.toml constraints.txt
	@echo "installing into .venv (some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]' \
	  $$($(PYTHON) -c 'import sys; print("-cconstraints.txt" * (sys.version_info >= (3, 11)))')
	touch $@

train: $(BIN)/.installed ## Train on the embedded data (ARGS="experiment=... key=value")
	$(BIN)/python train.py $(ARGS)

test: $(BIN)/.installed ## Run all tests (ARGS="-k name")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED) $(ARGS)

quick: $(BIN)/.installed ## Run the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED) -m "not slow" $(ARGS)

lint: $(BIN)/.installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BIN)/.installed ## Measure what explanations cost
	$(BIN)/python benchmarks/cost.py

clean: ## Remove the environment, caches, runs and rendered data
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf runs data/synthetic_*
