# Every target sets up what it needs. VENV and PYTHON may be overridden.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help setup lint types test format clean

help:
	@echo "make test     lint, types and all tests"
	@echo "make format   let ruff lay out the code"

$(VENV)/ready: pyproject.toml tests/setup-host.sh
	sh tests/setup-host.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(VENV)/ready

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: lint types
	systemd-analyze security --offline=true --threshold=20 systemd/numad-py.service >/dev/null
	$(BIN)/pytest

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
