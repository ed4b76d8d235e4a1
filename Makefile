# The two commands for newcomers: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
# Test files that run at once; each starts processes of its own.
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test coverage lint bench soak proto api install models wasm clean

demo: install models wasm
	$(BIN)/loom demo

test: install models wasm
	$(BIN)/python -m pytest -m "not soak and not alone" -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m "not soak and alone"

# Without the tests over the `fake` tier: what is counted here ran over real plugins.
coverage: install models wasm
	$(BIN)/python -m pytest -m "not soak" --cov --cov-report=term-missing:skip-covered \
	    $$(grep -lw Rig tests/test_*.py | sed 's/^/--ignore=/')

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install models wasm
	$(BIN)/python -m bench

soak: install models wasm
	$(BIN)/python -m pytest -m soak --timeout 0

install: $(STAMP)

$(STAMP): pyproject.toml sdk/python/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e "sdk/python[grpc,native]" -e ".[voice,local-llm,memory,dev]"
	$(BIN)/python -m compileall -q loom_host sdk/python/loom_sdk plugins
	touch $@

models: install
	$(BIN)/loom models pull --needed

wasm: install
	$(BIN)/loom plugin build plugins/wasm/calculator

proto: install
	$(BIN)/python -m tools.proto

api: install
	$(BIN)/python -m tools.api

clean:
	rm -rf $(VENV) build dist
