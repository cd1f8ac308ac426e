# What developers do besides ./run and ./test; `make` alone lists it.

BIN := .venv/bin
LOCK := $(BIN)/python -m uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
SECONDS := 600
TIMES := 25
PEER :=
MODELS :=
PARITY := .work/parity

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make .venv with everything the tests need
	./test --setup

.PHONY: run
run: ## show the demonstration
	./run

.PHONY: test
test: ## pass all tests
	./test

.PHONY: lint
lint: ## ruff, mypy, import layers, declared dependencies
	./test lint

.PHONY: types
types: ## strict types only
	$(BIN)/mypy

.PHONY: layers
layers: ## import layers only
	$(BIN)/lint-imports --no-cache

.PHONY: e2e
e2e: ## end-to-end tests only
	./test tests/e2e

.PHONY: bench
bench: ## measure speed (PEER=a Python with torch, to compare with fedi-safety's path)
	$(BIN)/python -m bench.run $(if $(PEER),--peer $(PEER))

.PHONY: parity
parity: ## hold built models against PyTorch (MODELS="ViT-B-32 ..."; some gigabytes, once)
	test -x $(PARITY)/bin/python || $(BIN)/python -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet torch==2.13.0
	$(PARITY)/bin/python -m pip install --quiet --no-deps open-clip-torch==3.3.0 timm==1.0.31
	$(PARITY)/bin/python -m pip install --quiet ftfy numpy onnx onnxruntime onnxscript pillow regex safetensors structlog tokenizers tqdm
	PYTHONPATH=src $(PARITY)/bin/python -m tests.parity.compare $(MODELS)

.PHONY: fuzz
fuzz: ## throw damaged files at the cage (SECONDS=600)
	$(BIN)/python -m tests.fuzz.fuzz_media --seconds $(SECONDS)

.PHONY: long
long: ## end-to-end tests that ./test has no time for (some minutes)
	$(BIN)/python -m pytest -n 2 tests/e2e -m long

.PHONY: soak
soak: ## kill -9 scan, apply and restore hundreds of times (TIMES=25)
	FEDIWARDEN_SOAK=$(TIMES) $(BIN)/python -m pytest tests/e2e/test_kill.py -k random -q

.PHONY: soak-gate
soak-gate: ## kill -9 the gate, or whoever writes to the ledger, under load (TIMES=25)
	FEDIWARDEN_SOAK=$(TIMES) $(BIN)/python -m pytest tests/e2e/test_gate_soak.py -q

.PHONY: watch-month
watch-month: ## a month of watching in minutes, on a real S3 server
	$(BIN)/python -m tests.long.watch_month

.PHONY: watch-faults
watch-faults: ## break everything around a watch, and reckon afterwards (SECONDS=600)
	$(BIN)/python -m tests.long.watch_faults --seconds $(SECONDS)

.PHONY: watch-soak
watch-soak: ## memory, files and threads of a watch under load, and what idling costs (25 minutes)
	$(BIN)/python -m tests.long.watch_soak

.PHONY: real
real: ## everything about pict-rs beside the real one, in the versions of scripts/real.sh (builds them at first: as root, half an hour)
	scripts/real.sh
	$(BIN)/python -m pytest tests/real -n 2 -q $(if $(ONLY),-k "$(ONLY)")

.PHONY: fuzz-gate
fuzz-gate: ## throw broken requests at a running gate (SECONDS=600)
	$(BIN)/python -m tests.fuzz.fuzz_gate --seconds $(SECONDS)

.PHONY: docs
docs: ## hold the documents to the program
	./test tests/unit/test_docs.py

.PHONY: container
container: ## build the container's image, lint it, and prove that it works (as root; some minutes)
	scripts/container.sh

.PHONY: units
units: ## boot a systemd with the units of deploy/systemd and prove that they work (as root, after make container)
	scripts/units.sh

.PHONY: lock
lock: ## compile requirements/*.lock again from pyproject.toml and requirements/*.in
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --extra all -o requirements/run.lock
	$(LOCK) pyproject.toml $(addprefix --extra ,build cuda gate postgres sftp video watch) -c requirements/run.lock -o requirements/cuda.lock
	$(LOCK) requirements/build.in -c requirements/run.lock -o requirements/build.lock
	$(LOCK) requirements/demo.in -c requirements/run.lock -o requirements/demo.lock
	$(LOCK) requirements/dev.in -o requirements/dev.lock
	$(LOCK) requirements/container.in -o requirements/container.lock
