# Every target that runs something first brings .venv up to date; on a ready .venv that takes a moment.
#
#   VARIANT=cpu|cuda   which build of torch and fbgemm; by itself: cuda where nvidia-smi finds a GPU
#   PYTHON=python3.12  the interpreter behind .venv; by itself: the first of 3.11 or later
#   ARGS="-k merge"    more arguments for pytest, or for the demo
#   WORKERS=2          processes for the default tests; 0 runs them in one

PYTHON ?=
VARIANT ?= auto
ARGS ?=
WORKERS ?= 2

RUN := .venv/bin/python
BOOTSTRAP := $(or $(PYTHON),python3) tools/bootstrap.py --variant "$(VARIANT)" $(if $(PYTHON),--this-python)
OURS := configs modules sharding trainer torchx_components tools tests

# Whole files to a process. One that crashes ends the run with the test's name: started again it would hang
# (pytest-xdist 3.8.0, every --dist but load).
DEALING := --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Where the environment forbids it, every one of the many processes compiles all our sources anew, 0.8 s of its start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test test-gpu test-slow check format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install:  ## bring .venv up to date
	@$(BOOTSTRAP)

demo: install  ## from a raw log to merged predictions and a table, in minutes
	@$(RUN) tools/demo.py $(ARGS)

test: install  ## all tests but those for a GPU and the slow ones
	@$(RUN) -m pytest -m "not gpu and not slow" -n $(WORKERS) $(DEALING) $(ARGS)

test-gpu: install  ## what only a CUDA machine can verify
	@$(RUN) -m pytest -m gpu $(ARGS)

test-slow: install  ## the tests that take minutes
	@$(RUN) -m pytest -m "slow and not gpu" $(ARGS)

check: install  ## format, lint, types, then the tests
	$(RUN) -m ruff format --check $(OURS)
	$(RUN) -m ruff check $(OURS)
	$(RUN) -m mypy
	@$(MAKE) --no-print-directory test

format: install  ## rewrite the sources in the project's format
	$(RUN) -m ruff format $(OURS)
	$(RUN) -m ruff check --fix $(OURS)

clean:  ## remove caches and build folders; .venv, runs and data stay
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(OURS) -name __pycache__ -type d -prune -exec rm -rf {} +
