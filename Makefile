# make demo and make test set up .venv by themselves; UI=0 ends the demo without the web UI.
SHELL := /bin/bash
# The first that runs and is new enough: a shim on the PATH may stand for a Python that is not there.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
UI ?= 1
# One more than a small machine has cores: tests also wait, for processes and for leases to run out.
JOBS ?= 3
# The order of the tests; another one, as make test SEED=$$RANDOM, finds what leans on what ran before.
SEED ?= 1
SLOW = $(BIN)/python -m pytest -q --randomly-seed=$(SEED) -n $(JOBS) --dist loadfile --no-loadscope-reorder
FAST := $(addprefix ops_pipeline_tests/,domain clients sandbox structure test_settings.py)

# What is compiled is kept, whatever the machine says: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test check proofs docs clean

help:  ## show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

install: .venv/.ready  ## set up .venv from the pinned constraints

.venv/.ready: setup.py constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || { \
		echo "error: Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=/path/to/python3.12"; exit 4; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv module; on Debian: apt install python3-venv"; exit 4; }
	@echo "setting up .venv with $$($(PYTHON) --version), this takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# FinBERT is exported by torch, which the demo and the fast tests do without.
.venv/.tested: .venv/.ready
	@echo "adding what the tests need: torch, transformers and what bench compares with, a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench,finbert]'
	@touch $@

demo: install  ## play a generated market day end to end, then open the UI on it (UI=0: do not)
	@$(BIN)/ops-pipeline demo $(if $(filter 0,$(UI)),--no-ui,--ui)

check: install  ## lint, types, floors and the fast tests, about a minute
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -m fast --randomly-seed=$(SEED) -n $(JOBS) --dist loadfile $(FAST)

test: check .venv/.tested  ## what check does, the SQL, then all other tests but the proofs, in ten minutes
	@$(BIN)/sqlfluff lint --quiet --processes 2 dbt_features/models dbt_features/tests ops_pipeline/storage/sql ops_pipeline/storage/migrations
	@$(SLOW) -m 'not fast and not proof'

proofs: .venv/.tested  ## whole days, kills and benchmarks, in ten minutes more
	@$(SLOW) -m proof

docs: install  ## write the generated pages again
	@$(BIN)/python -m ops_pipeline_tests.structure.pages

clean:  ## remove what was set up, but not var/; refused while something of it runs
	@! pgrep -f "^$(CURDIR)/.venv/" >/dev/null || { \
		echo "error: processes of $(CURDIR)/.venv run; first: $(BIN)/ops-pipeline down"; exit 6; }
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
