# Everything runs in .venv, made from requirements.lock by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

DATA_BIN := .venv-data/bin
DATA_READY := .venv-data/.installed

.PHONY: help setup pretrain test test-data lint format lock clean

help:  ## This list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv with the locked dependencies and this package.

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"make: Python {v[0]}.{v[1]} is not supported; name one of 3.11 to 3.13, as in make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

pretrain: $(READY)  ## Train the quickstart model on rendered scenes; about 5 minutes on 2 cores.
	$(BIN)/python recipes/pretrain.py $(ARGS)

test: $(READY)  ## Run the tests.
	$(BIN)/python -m pytest $(ARGS)

$(DATA_READY): requirements-data.lock pyproject.toml
	$(PYTHON) -m venv .venv-data
	$(DATA_BIN)/python -m pip install --quiet --upgrade pip
	$(DATA_BIN)/python -m pip install --quiet -r requirements-data.lock
	$(DATA_BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-data: $(DATA_READY)  ## Run the tests with Apache Beam and img2dataset, in .venv-data.
	$(DATA_BIN)/python -m pytest tests/data/preparation/test_beam_pipeline.py tests/data/preparation/test_img2dataset.py $(ARGS)

lint: $(READY)  ## Check style, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Mend style and format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Resolve pyproject.toml into both locks, for Python 3.11 to 3.13.
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra test \
		--no-annotate --no-emit-package align-keras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra test-data \
		--no-annotate --no-emit-package align-keras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements-data.lock pyproject.toml

clean:  ## Remove .venv and caches; runs/ stays.
	rm -rf $(VENV) .venv-data .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
