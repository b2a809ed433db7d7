# Two commands do everything on a machine that has python3 and make:
#   make demo   set up, then run the main job on a simulated mismatched stack
#   make test   set up, then lint, type-check and test
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup setup-dev demo test lint clean

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

demo: setup
	$(BIN)/diffphys demo --output demo

lint: setup-dev
	$(BIN)/ruff check diffphys tests benchmarks notebooks
	$(BIN)/ruff format --check diffphys tests benchmarks notebooks
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) demo
