# Everything a person or CI runs. `make demo` and `make test` need git, make and Python 3.11 or newer, nothing else.
PARALLEL ?= -n 2 --dist loadfile  # two processes, each test file in one of them

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
QUIET := $(shell test -t 2 || echo --quiet)  # pip shows its bars on a terminal
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: help demo test test-long test-slow check lint format docs readme clean

help:
	@echo 'make demo       train, test and use a network on handwritten digits (about 2 minutes)'
	@echo 'make test       the tests that take no more than a second or two (about 5 minutes)'
	@echo 'make test-long  those that take seconds each'
	@echo 'make test-slow  the slow ones: kills, bit flips, odd files, two processes'
	@echo 'make check      format, lint, types and tests: what a change must pass'
	@echo 'make format     let ruff format and repair'
	@echo 'make docs       a site of docs/ and of every public name, in build/docs'
	@echo 'make readme     write the tables in README.md and docs/ from results/'

demo: $(VENV)/.run
	$(BIN)/leancnn demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PARALLEL)

test-long: $(VENV)/.test
	$(BIN)/python -m pytest $(PARALLEL) -m 'long and not slow'

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

check: lint
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks/*.py examples/*.py

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo 'build/docs/index.html'

readme: $(VENV)/.run
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps below make a second `make` start at once; a change of pyproject.toml installs again.

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'leancnn needs Python 3.11 or newer with the venv module (Debian: apt install python3-venv)'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV), once: PyTorch is large' >&2
	$(PIP) install $(QUIET) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install $(QUIET) --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install $(QUIET) --editable '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.run

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.run
