# `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
WORKERS ?= 2

.PHONY: help install demo test test-all check format clean

help:
	@echo "make demo      meta-train for a minute, export, and train a Vision Transformer with the result"
	@echo "make test      the tests, at most fifteen minutes on two cores"
	@echo "make test-all  the long tests too"
	@echo "make check     ruff, basedpyright and the import rules"
	@echo "make format    ruff's formatter"
	@echo "make clean     remove what the demo and the builds made"

install: $(INSTALLED)

# torch comes first: pinned, it satisfies whatever asks for it later.
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
