# make demo   a sample folder of photos, indexed and searched; nothing but Python 3.11 and make is needed
# make test   lint, types and the quick tests: under five minutes on two cores
# make test-all  everything CI checks: make test; make test-slow, which is long and real; make test-cluster, with real servers
# make docs   the --help pages in docs/cli.md, and the documentation site, in site/index.html
# make gpu    tests and figures on a machine with a CUDA GPU, in five minutes; needs few packages: see CONTRIBUTING.md
#
# make demo PHOTOS=~/Pictures QUERY=img.jpg    the same on your own photos
# make demo FLAVOUR=gpu    with vggsearch, for GPUs; FLAVOUR=cpu is the light vggsearch-cpu; the default is what fits
# make wheels    wheel and source distribution of both, into dist

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
CPU_VENV := .venv-cpu
BIN := $(VENV)/bin
CONSTRAINTS ?=
PIP_OPTIONS = -qq --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
FLAVOUR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

PHOTOS ?= demo/photos
QUERY ?= demo/photos/originals/chelsea.jpg

.DEFAULT_GOAL := help
.PHONY: help demo demo-cpu demo-gpu wheels test test-all test-slow test-cluster gpu fmt docs lint types unit picture clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/bin/python $(CPU_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vggsearch needs Python 3.11 or newer; name one: make PYTHON=...")'
	@$(PYTHON) -m venv $(@D:/bin=)

# Nothing is compiled ahead: of what is installed, a command loads a small part.
$(CPU_VENV)/.demo: pyproject.toml packaging/cpu.py | $(CPU_VENV)/bin/python
	@echo "Installing vggsearch-cpu into $(CPU_VENV): 0.8 GB, once ..."
	@$(PYTHON) packaging/cpu.py build/cpu
	@$(CPU_VENV)/bin/python -m pip install $(PIP_OPTIONS) --no-compile --editable build/cpu
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vggsearch into $(VENV): 7.5 GB with PyTorch and CUDA, once ..."
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vggsearch and its development tools into $(VENV): 8 GB, once ..."
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	@echo "Installing what builds the documentation into $(VENV), once ..."
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --editable '.[docs]'
	@touch $@

demo:
	@$(MAKE) --no-print-directory demo-$(FLAVOUR)

demo-cpu: $(CPU_VENV)/.demo
demo-gpu: $(VENV)/.demo
demo-cpu demo-gpu:
	@VENV=$(<D) PHOTOS='$(PHOTOS)' QUERY='$(QUERY)' PIP_OPTIONS='$(PIP_OPTIONS)' sh examples/demo.sh

wheels: $(VENV)/.dev
	$(PYTHON) packaging/cpu.py build/cpu
	$(BIN)/python -m hatchling build -d $(CURDIR)/dist
	cd build/cpu && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist

# JOBS=1 runs the tests one after the other; COVERAGE=1 also counts lines, and fails below the floor in pyproject.toml.
JOBS ?= auto
COVERAGE ?=
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadgroup

test: lint types unit

test-all: test test-slow test-cluster

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(PYTEST) -m "not slow and not cluster" $(if $(COVERAGE),--cov)

test-slow: $(VENV)/.docs
	$(PYTEST) -m "(slow or hypothesis) and not cluster" --hypothesis-profile ci

# One after the other: each starts servers or a cluster of several processes.
test-cluster: $(VENV)/.dev
	$(BIN)/python -m pytest -m cluster

gpu:
	@$(PYTHON) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA GPU here.")'
	@$(PYTHON) -m pytest -m gpu tests/test_gpu.py tests/test_gpu_knn.py; tests=$$?; \
	PYTHONPATH=$(CURDIR) $(PYTHON) benchmarks/gpu_indexing.py --out build/gpu_indexing.json && exit $$tests

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/cog -r -I docs docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The documentation is in site/index.html"

picture: $(VENV)/.dev
	PYTHONPATH=examples $(BIN)/python docs/make_picture.py
	PYTHONPATH=examples $(BIN)/python docs/make_server_pictures.py

clean:
	rm -rf $(VENV) $(CPU_VENV) demo build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
