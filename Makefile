# `make train` and `make test` do all set-up themselves: they need Python >= 3.10, make, and uv or
# pip. PYTHON= takes another interpreter, UV= (empty) keeps to pip where uv is there, CPU=1 leaves
# the CUDA libraries out (with uv).
PYTHON ?= python3
UV ?= $(shell command -v uv)
BIN := .venv/bin
LOWEST := .venv-lowest
# Tests share the cores; two more than there are, because some wait.
# Where Python is told to write no bytecode, each of them would compile the tests again in every run.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
SHARED := -n $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 4) + 2)') --dist worksteal

.PHONY: help train test quick lowest attack lint docs notebooks wheel bench cuda clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The exact versions need Python 3.11; on 3.10 the newest are taken that still support it.
EXACT = $$($(PYTHON) -c 'import sys; print("-cconstraints.txt" * (sys.version_info >= (3, 11)))')

$(BIN)/.installed: pyproject.toml constraints.txt
	@echo "installing into .venv: 6 GB on disk with CUDA, some minutes the first time"
ifneq ($(UV),)
	uv venv --quiet --seed --allow-existing --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv uv pip install --quiet $(if $(CPU),--torch-backend=cpu) --editable '.[dev,docs]' $(EXACT)
else
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev,docs]' $(EXACT)
endif
	@du -sh .venv
	touch $@

train: $(BIN)/.installed ## Train on the synthetic data (ARGS="experiment=... key=value")
	$(BIN)/python train.py $(ARGS)

test: $(BIN)/.installed ## Run all tests (ARGS="-k name")
	$(TESTS) $(BIN)/python -m pytest $(SHARED) $(ARGS)

quick: $(BIN)/.installed ## Run the quick tests
	$(TESTS) $(BIN)/python -m pytest $(SHARED) -m "not slow" $(ARGS)

# uv alone can take the lowest versions; it comes along where it is not there.
$(LOWEST)/.installed: pyproject.toml
	@echo "installing the lowest versions into $(LOWEST): 7 GB on disk with CUDA"
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	VIRTUAL_ENV=$(LOWEST) $(LOWEST)/bin/uv pip install --quiet --resolution lowest-direct \
		$(if $(CPU),--torch-backend=cpu) --editable '.[dev]'
	touch $@

lowest: $(LOWEST)/.installed ## Run the quick tests with the lowest versions that pyproject.toml allows
	$(TESTS) $(LOWEST)/bin/python -m pytest $(SHARED) -m "not slow" $(ARGS)

attack: $(BIN)/.installed ## Attack the program and write docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python scripts/attack.py $(ARGS)

lint: $(BIN)/.installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(BIN)/.installed ## Build these pages and the API reference, strictly, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Nothing else needs nbconvert; it comes along where it is not there.
notebooks: $(BIN)/.installed ## Run the notebooks and store their outputs (ARGS=notebooks/sfm.ipynb: one)
	$(BIN)/python -m pip install --quiet nbconvert
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=-1 \
		--ExecutePreprocessor.record_timing=False --coalesce-streams \
		$(or $(ARGS),notebooks/*.ipynb)

wheel: $(BIN)/.installed ## Build the wheel and use it in an empty environment (FRESH=1 downloads one)
	scripts/check_wheel.sh $(BIN)/python

bench: $(BIN)/.installed ## Measure what explanations cost
	$(BIN)/python benchmarks/cost.py

cuda: $(BIN)/.installed ## Check on a machine with a GPU what only a GPU can show (ARGS=--dry: on the CPU)
	$(BIN)/python benchmarks/on_gpu.py $(ARGS)

clean: ## Remove the environment, caches, runs and rendered data
	rm -rf .venv $(LOWEST) build dist *.egg-info site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf runs data/synthetic_*
