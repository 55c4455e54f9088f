# Every target needs only make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
WORKERS ?= 2
# The newest of these that runs here. It gets the newest release of every library, in an environment of its own.
NEWEST ?= $(shell for each in python3.13 python3.12 $(PYTHON); do $$each -c '' 2>/dev/null && echo $$each && break; done)
NEWEST_BIN := .venv-newest/bin

.PHONY: help install demo test test-all test-newest check format clean

help:
	@echo "make demo         meta-train for a minute, export, and train a GPT and a ViT beside AdamW and Muon"
	@echo "make test         the tests, at most fifteen minutes on two cores"
	@echo "make test-all     the long tests too"
	@echo "make test-newest  the tests of tracing and exporting, with the newest Python and libraries"
	@echo "make check        ruff, basedpyright and the import rules"
	@echo "make format       the formatter of ruff"
	@echo "make clean        remove the results of the demo and of builds"

install: $(INSTALLED)

# torch is first, so that other packages find the pinned version installed.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check torch
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py --out demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-newest:
	test -x $(NEWEST_BIN)/python || $(NEWEST) -m venv .venv-newest
	$(NEWEST_BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade torch
	$(NEWEST_BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[test]'
	$(NEWEST_BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" tests/program tests/exporters tests/test_repository.py

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf demo build dist runs
