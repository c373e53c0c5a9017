# make demo   a sample folder of photos, indexed and searched; nothing but Python 3.11 and make is needed
# make test   lint, types and the quick tests: under five minutes on two cores
# make test-all  everything CI checks: make test, then make test-slow, which is what is long and real
# make docs   the --help pages in docs/cli.md, and the documentation site, in site/index.html
# make gpu    on a machine with a CUDA GPU; needs torch, torchvision, safetensors, numpy, Pillow, pyarrow, click, pytest
#
# make demo PHOTOS=~/Pictures QUERY=img.jpg    the same on your own photos

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?=
PIP_INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

PHOTOS ?= demo/photos
QUERY ?= demo/photos/originals/chelsea.jpg

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-slow gpu fmt docs lint types unit clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vggsearch needs Python 3.11 or newer; name one: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vggsearch and what it needs into $(VENV) (a few minutes, once) ..."
	$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vggsearch and its development tools into $(VENV) (a few minutes, once) ..."
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	@echo "Installing what builds the documentation into $(VENV) (once) ..."
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	@BIN=$(BIN) PHOTOS='$(PHOTOS)' QUERY='$(QUERY)' sh examples/demo.sh

# JOBS=1 runs the tests one after the other; COVERAGE=1 also counts lines, and fails below the floor in pyproject.toml.
JOBS ?= auto
COVERAGE ?=
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadgroup

test: lint types unit

test-all: test test-slow

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(PYTEST) -m "not slow" $(if $(COVERAGE),--cov)

test-slow: $(VENV)/.dev
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile ci

gpu:
	@$(PYTHON) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA card here.")'
	$(PYTHON) -m pytest -m gpu tests/test_gpu.py
	$(PYTHON) -m vggsearch bench --format json

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/cog -r -I docs docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The documentation is in site/index.html"

clean:
	rm -rf $(VENV) demo build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
