# Two commands do everything on a machine that has python3 and make:
#   make demo   set up, then run the main job on a simulated mismatched stack
#   make test   set up, then lint, type-check and test
# Before a release, each in a fresh environment (PYTHON=python3.12 names the interpreter):
#   make test-oldest   the tests of tests/supported.txt with the versions of tests/oldest.txt (Python 3.11)
#   make test-newest   the same with the newest of everything, pre-releases of jax included (Python 3.12 or newer)
#   make test-wheel    build the wheel, install it, run the demo in an empty folder
# The documentation site:
#   make docs          docs/_build/html, notebooks run; make linkcheck needs the net
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup setup-dev demo test test-oldest test-newest test-wheel lint docs linkcheck clean

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

# Files in their own order: by the number of tests in them, as is usual, the longest few would be left for the end.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# A virtual environment of its own for each, made anew; warnings are other packages' about each other there, so not errors.
# Compiled as users have it, with all optimisations; `make test` leaves most of them out.
FRESH = $(VENV)-$@
SUPPORTED = JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(FRESH)/bin/python -m pytest --override-ini filterwarnings=default --durations 5 @tests/supported.txt

test-oldest:
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --constraint tests/oldest.txt . pytest scikit-image
	$(SUPPORTED)

test-newest:
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --upgrade . pytest scikit-image
	$(FRESH)/bin/python -m pip install --quiet --upgrade --pre jax jaxlib
	$(SUPPORTED)

test-wheel:
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(FRESH)/wheel .
	$(FRESH)/bin/python -m pip install --quiet $(FRESH)/wheel/diffphys-*.whl
	mkdir $(FRESH)/empty
	cd $(FRESH)/empty && ../bin/diffphys demo --output demo && ls demo

clean:
	rm -rf $(VENV) $(VENV)-test-oldest $(VENV)-test-newest $(VENV)-test-wheel demo docs/_build docs/generated .pytest_cache
