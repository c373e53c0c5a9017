# make demo   a sample folder of photos, indexed and searched; nothing but Python 3.11 and make is needed
# make test   everything CI checks
# make gpu    on a machine with a CUDA card, with PYTHON's own torch, torchvision, numpy, Pillow, pyarrow, click, pytest
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
.PHONY: help demo test gpu fmt docs lint types unit clean

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

demo: $(VENV)/.demo
	@BIN=$(BIN) PHOTOS='$(PHOTOS)' QUERY='$(QUERY)' sh examples/demo.sh

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest

gpu:
	@$(PYTHON) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA card here.")'
	$(PYTHON) -m pytest -m gpu tests/test_gpu.py
	$(PYTHON) -m vggsearch bench --format json

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cog -r README.md

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
