# Everything runs in .venv, made from requirements.lock by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

DATA_BIN := .venv-data/bin
DATA_READY := .venv-data/.installed

# The oldest set of dependencies, which is also that of Colab: TensorFlow 2.20 on Python 3.13.
OLDEST_BIN := .venv-oldest/bin
OLDEST_READY := .venv-oldest/.installed
OLDEST_PYTHON ?= $(shell for python in python3.13 python3 \
	"$$(pyenv prefix "$$(pyenv versions --bare | grep '^3[.]13' | tail -n 1)")/bin/python"; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' && echo "$$python" && break; \
	done 2> /dev/null)
COLAB_READY := .venv-colab/.installed
OLDEST_TESTS := tests/losses tests/optimizers tests/layers tests/preprocessing tests/models \
	tests/data tests/test_notebooks.py

# The locked dependencies and JAX with libtpu, which .venv is to be without: Keras and others would find it.
TPU_COMPILE_BIN := .venv-tpu-compile/bin
TPU_COMPILE_READY := .venv-tpu-compile/.installed
BENCHMARKS_BIN := .venv-benchmarks/bin
BENCHMARKS_READY := .venv-benchmarks/.installed
# The site's tools: .venv stays as its lock says.
DOCS_BIN := .venv-docs/bin
DOCS_READY := .venv-docs/.installed

.PHONY: help setup pretrain test test-faults test-data test-oldest test-colab tpu-compile benchmarks docs \
	picture notebooks lint format lock clean

help:  ## This list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv with the locked dependencies and this package.

# setuptools warns of folders named like the package for every editable installation: ignored.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"make: Python {v[0]}.{v[1]} is not supported; name one of 3.11 to 3.13, as in make PYTHON=python3.12")'
	@echo 'installing TensorFlow and the other dependencies into $(VENV): 3.6 GB, a few minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

pretrain: $(READY)  ## Train the quickstart model on rendered scenes; 7 to 15 minutes on 2 cores.
	$(BIN)/python recipes/pretrain.py $(ARGS)

test: $(READY)  ## Run the tests.
	$(BIN)/python -m pytest $(ARGS)

# CASES, KILLS and SEED: how many damaged items and kills, and of which seed. FIGURES: a file for the
# tables that it prints. Whoever is done takes tests from the other process: some take a minute.
test-faults: $(READY)  ## Kill runs and damage data; CASES=100000 KILLS=1000 SEED=1 for other numbers.
	CASES=$(CASES) KILLS=$(KILLS) SEED=$(SEED) FIGURES=$(FIGURES) \
		$(BIN)/python -m pytest -m faults --dist worksteal $(or $(ARGS),tests/faults)

$(DATA_READY): requirements-data.lock pyproject.toml
	$(PYTHON) -m venv .venv-data
	$(DATA_BIN)/python -m pip install --quiet --upgrade pip
	$(DATA_BIN)/python -m pip install --quiet -r requirements-data.lock
	PYTHONWARNINGS=ignore $(DATA_BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-data: $(DATA_READY)  ## Run the tests with Apache Beam, img2dataset, MLflow and wandb, in .venv-data.
	$(DATA_BIN)/python -m pytest tests/data/preparation/test_beam_pipeline.py \
		tests/data/preparation/test_beam_runners.py tests/recipes/test_img2dataset.py \
		tests/runs/test_tracker_stores.py $(ARGS)

# Stops make where there is no Python 3.13.
FIND_OLDEST_PYTHON = test -n "$(OLDEST_PYTHON)" || { echo "make: no Python 3.13 found; name it, as in" \
	"make $(MAKECMDGOALS) OLDEST_PYTHON=/path/to/python3.13"; exit 1; }

$(OLDEST_READY): requirements-oldest.lock pyproject.toml
	@$(FIND_OLDEST_PYTHON)
	$(OLDEST_PYTHON) -m venv .venv-oldest
	$(OLDEST_BIN)/python -m pip install --quiet --upgrade pip
	$(OLDEST_BIN)/python -m pip install --quiet -r requirements-oldest.lock
	PYTHONWARNINGS=ignore $(OLDEST_BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-oldest: $(OLDEST_READY)  ## Run the core's tests and the notebooks with the oldest dependencies.
	$(OLDEST_BIN)/python -m pytest $(or $(ARGS),$(OLDEST_TESTS))

$(COLAB_READY): requirements-colab.txt
	@$(FIND_OLDEST_PYTHON)
	$(OLDEST_PYTHON) -m venv .venv-colab
	.venv-colab/bin/python -m pip install --quiet -r requirements-colab.txt
	@touch $@

test-colab: $(COLAB_READY)  ## Run the notebooks' first cells as written, over Colab's TensorFlow.
	.venv-colab/bin/python tests/colab.py .venv-colab

$(TPU_COMPILE_READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-tpu-compile
	$(TPU_COMPILE_BIN)/python -m pip install --quiet --upgrade pip
	$(TPU_COMPILE_BIN)/python -m pip install --quiet -r requirements.lock
	PYTHONWARNINGS=ignore $(TPU_COMPILE_BIN)/python -m pip install --quiet --editable '.[tpu-compile]'
	@touch $@

tpu-compile: $(TPU_COMPILE_READY)  ## Compile a small training step for a TPU, without one; minutes.
	$(TPU_COMPILE_BIN)/python benchmarks/tpu_compile.py \
		$(or $(ARGS),--experiments quickstart --variants plain --chips v5e)

# torch 2.13.0 without CUDA, which is gigabytes, where the package index has such a build.
$(BENCHMARKS_READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-benchmarks
	$(BENCHMARKS_BIN)/python -m pip install --quiet --upgrade pip
	$(BENCHMARKS_BIN)/python -m pip install --quiet -r requirements.lock
	PYTHONWARNINGS=ignore $(BENCHMARKS_BIN)/python -m pip install --quiet --editable '.[benchmarks]'
	@touch $@

benchmarks: $(BENCHMARKS_READY)  ## Compare with what people would use instead, in one table; an hour.
	$(BENCHMARKS_BIN)/python benchmarks/ratios.py $(ARGS)

$(DOCS_READY): requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	$(DOCS_BIN)/python -m pip install --quiet --upgrade pip
	$(DOCS_BIN)/python -m pip install --quiet -r requirements-docs.lock
	@touch $@

# Ruff, which formats signatures, is found by PATH. Not --quiet: then warnings are no errors.
docs: $(DOCS_READY)  ## Build the documentation into site/; warnings are errors. ARGS=serve shows it.
	PATH="$(CURDIR)/$(DOCS_BIN):$$PATH" NO_MKDOCS_2_WARNING=1 \
		$(DOCS_BIN)/python -m mkdocs $(or $(ARGS),build)

PICTURE := docs/pictures/retrieval.png

# With 256 colours: a fifth of the bytes.
picture: $(READY)  ## Train the quickstart model and draw the documentation's picture.
	$(BIN)/python recipes/pretrain.py --workdir=runs/picture
	$(BIN)/python -c "from PIL import Image; sheet = Image.open('runs/picture/retrieval.png'); \
		sheet.convert('RGB').quantize(256, dither=0).save('$(PICTURE)', optimize=True)"

notebooks: $(READY)  ## Run the notebooks and keep their output in them; a quarter of an hour.
	$(BIN)/python notebooks/keep_outputs.py $(ARGS)

lint: $(READY)  ## Check style, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Mend style and format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Resolve pyproject.toml into the locks: newest for Python 3.11 to 3.13, and oldest.
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra test \
		--no-annotate --no-emit-package align-keras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra test-data \
		--no-annotate --no-emit-package align-keras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements-data.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group docs \
		--no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements-docs.lock
	echo 'tensorflow==2.20.0' | $(BIN)/uv pip compile --quiet --python-version 3.13 --extra test \
		--resolution lowest-direct --only-binary :all: --no-binary promise --constraint - \
		--no-annotate --no-emit-package align-keras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements-oldest.lock pyproject.toml

clean:  ## Remove .venv and caches; runs/ stays.
	rm -rf $(VENV) .venv-data .venv-oldest .venv-colab .venv-tpu-compile .venv-benchmarks .venv-docs site .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
