# Every target sets up what it needs. VENV and PYTHON may be overridden.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help setup demo bench soak lint types test format clean

help:
	@echo "make demo     the main job, to be looked at: here, or in a guest of four nodes"
	@echo "make bench    ratios against numad, psutil and others, measured here and in a guest;"
	@echo "              BENCH=\"discovery quiet\" picks subjects"
	@echo "make soak     an hour amid workers that come and go in a guest: does it grow?"
	@echo "              SOAK=\"--minutes 5\" for less"
	@echo "make test     lint, types and all tests; NUMAD_PY_NO_GUEST=1 leaves the guests out,"
	@echo "              NUMAD_PY_FULL=1 runs every guest with and without huge pages"
	@echo "make format   let ruff lay out the code"

$(VENV)/ready: pyproject.toml
	@sh tests/setup-host.sh
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(VENV)/ready
	@sh tests/setup-host.sh

demo: setup
	@$(BIN)/python -m tests.demo $(DEMO)

bench: setup
	@sh tests/setup-host.sh bench
	@$(BIN)/python -m tests.bench $(BENCH)

soak: setup
	@$(BIN)/python -m tests.soak $(SOAK)

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
