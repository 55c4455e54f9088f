# Every target needs only make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
WORKERS ?= 2

.PHONY: help install demo test test-all test-versions test-newest check format clean

help:
	@echo "make demo           meta-train for a minute, export, and train a GPT and a ViT beside AdamW and Muon"
	@echo "make test           the tests, at most fifteen minutes on two cores"
	@echo "make test-all       the long tests too"
	@echo "make test-versions  the tests of tracing and exporting, from the oldest Python and libraries to the newest"
	@echo "make test-newest    those with the newest alone"
	@echo "make check          ruff, basedpyright and the import rules"
	@echo "make format         the formatter of ruff"
	@echo "make clean          remove the results of the demo and of builds"

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

test-versions: $(INSTALLED)
	$(BIN)/python -m tests.versions --workers $(WORKERS)

test-newest: $(INSTALLED)
	$(BIN)/python -m tests.versions --workers $(WORKERS) --only newest

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
