# PYTHON: the interpreter that makes the environment. VENV: where it lies. WORKERS: test processes side by side.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.trimtune-installed
EXTRAS := embedded,openvino,onnx,dev
WORKERS ?= 2
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gguf check types quick docs clean

help:
	@echo "make setup   an environment in $(VENV), installed once and again when its requirements change"
	@echo "make demo    the example study: five ways of tuning, trimmed, on three engines; ends with the report's path"
	@echo "make check   lint, types and the quick tests"
	@echo "make test    every test"
	@echo "make test-gguf   builds llama.cpp (some minutes, needs a C++ compiler) and runs the tests that need it"
	@echo "make docs    docs/parts.md from the parts themselves"
	@echo "make clean   removes caches and builds; keeps $(VENV) and runs/"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]' -c constraints.txt
	@touch $@

demo: setup
	$(BIN)/trimtune run examples/helpdesk.yaml

test: setup
	$(BIN)/python -m pytest -q --durations=25 $(SIDE_BY_SIDE)

test-gguf: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS),gguf]' -c constraints.txt
	$(BIN)/python -m pytest -q -m gguf

check: setup
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j2 types quick

types:
	$(BIN)/mypy

quick:
	$(BIN)/python -m pytest -q -m "not slow" $(SIDE_BY_SIDE)

docs: setup
	$(BIN)/python scripts/docs.py

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
