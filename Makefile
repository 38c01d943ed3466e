# make demo | test | torture | bench | format | constraints | clean
#
# Everything lives in .venv, made on first use with a Python of 3.11 or newer (PYTHON=… to choose one) and
# with the versions in constraints.txt. The stamps inside .venv say what is installed already; they are
# older than pyproject.toml or constraints.txt when it has to be done again.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests $(wildcard benchmarks examples tools)
PYTEST_ARGS ?=
MINUTES ?= 10

FIND_PYTHON = \
	found=; \
	for candidate in "$(PYTHON)" python3.11 python3 python3.12 python3.13 python3.14; do \
		if [ -n "$$candidate" ] && "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then echo "holdfast needs Python 3.11 or newer; name one with PYTHON=…" >&2; exit 1; fi

# Both names, because pip before 25.3 holds build environments to the first and later ones to the second.
PIP_INSTALL = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test torture bench format constraints clean

help:
	@sed -n '1s/^# //p' Makefile

demo: $(VENV)/.base
	@$(BIN)/holdfast demo

test: $(VENV)/.dev
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest --numprocesses=4 --dist=worksteal $(PYTEST_ARGS)

torture: $(VENV)/.dev
	@$(BIN)/python -m tests.torture --minutes $(MINUTES)
	@$(BIN)/python -m tests.teeth

bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/run.py

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

# The newest versions that the development install resolves to, from an environment that holds nothing else.
# The build backend is in it too, with what it asks for when it builds an editable install.
constraints:
	@$(FIND_PYTHON); \
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	"$$found" -m venv "$$scratch/venv" && \
	"$$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check '.[dev]' hatchling editables && \
	"$$scratch/venv/bin/python" -m pip freeze --disable-pip-version-check --exclude holdfast > "$$scratch/freeze" && \
	if grep -v '^[A-Za-z0-9._-]*==[^ ]*$$' "$$scratch/freeze"; then \
		echo "not a plain name==version, constraints.txt left as it was" >&2; exit 1; \
	fi && \
	cp "$$scratch/freeze" constraints.txt

clean:
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(FIND_PYTHON); "$$found" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.base
