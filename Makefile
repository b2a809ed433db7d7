# Two commands do everything on a machine that has python3 and make:
#   make demo   set up, then run the main job on a simulated mismatched stack
#   make test   set up, then lint, type-check and test
# and one more, for the documentation site: make docs (docs/_build/html; runs the notebooks), make linkcheck (needs the net)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup setup-dev demo test lint docs linkcheck clean

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

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

docs: $(VENV)/.installed-docs
	DIFFPHYS_DOCS_EXECUTE=1 $(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

linkcheck: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -b linkcheck docs docs/_build/linkcheck

lint: setup-dev
	$(BIN)/ruff check diffphys tests benchmarks notebooks docs
	$(BIN)/ruff format --check diffphys tests benchmarks notebooks docs
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(VENV) demo docs/_build docs/generated
