# What developers do besides ./run and ./test. `make` alone lists it.

BIN := .venv/bin
LOCK := $(BIN)/python -m uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: lock
lock: ## compile requirements/*.lock again from pyproject.toml and requirements/*.in
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --extra all -o requirements/run.lock
	$(LOCK) requirements/build.in -c requirements/run.lock -o requirements/build.lock
	$(LOCK) requirements/demo.in -c requirements/run.lock -o requirements/demo.lock
	$(LOCK) requirements/dev.in -o requirements/dev.lock
