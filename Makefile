# Everything runs in .venv; nothing needs sudo. The first call sets it up, the next ones find it ready.
#
#   make demo        set up, paint with the packed model, train it some minutes, paint again; all in demo/
#   make scratch     set up, train every stage from nothing on 32 emoji, paint; all in scratch/
#   make check       lint, types, layers, fast tests: before every commit, about a minute
#   make test        every test that needs no accelerator, no network and little time
#   make test-all    every test this machine can run
#   make nano        train the `nano` preset on signs and emoji, from nothing: hours; all in runs/nano
#   make bench       measure this machine; writes into results/
#   make clean       remove .venv, demo/, scratch/ and all caches; runs/ and results/ stay
#
# Settings: make demo PYTHON=/path/to/python3 TORCH_INDEX=https://… TORCH_VERSION=2.13.0 (or 2.13.0+cu130)

# The first is the version that constraints.txt was made with.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$python" && break; done)
TORCH_VERSION ?= 2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS ?= 2

VENV_PYTHON := .venv/bin/python
SETUP = scripts/bootstrap.py --torch-version '$(TORCH_VERSION)' --torch-index '$(TORCH_INDEX)'
QUICK := not slow and not gpu and not npu and not network
# One thread a worker: two workers with all cores each are slower than one.
PYTEST = OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(WORKERS)

.PHONY: help setup setup-dev demo scratch nano check test test-all answers bench clean
.NOTPARALLEL:

help:
	@sed -n '3,10p' Makefile | cut -c3-

setup setup-dev: python-found
setup:
	@"$(PYTHON)" $(SETUP) --extras torch,data,logs,serve

setup-dev:
	@"$(PYTHON)" $(SETUP) --extras torch,mindspore,tensorflow,data,hub,logs,serve,dev

.PHONY: python-found
python-found:
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or later on the PATH' >&2; echo >&2; \
		echo 'hint: make demo PYTHON=/path/to/python3' >&2; exit 1; }

demo: setup
	$(VENV_PYTHON) scripts/demo.py

scratch: setup
	$(VENV_PYTHON) scripts/scratch.py

nano: setup
	$(VENV_PYTHON) scripts/nano.py

check: setup-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV_PYTHON) -m pyright
	.venv/bin/lint-imports
	$(PYTEST) -q -m "$(QUICK) and not process" tests/unit

test: setup-dev
	$(PYTEST) -m "$(QUICK)"

test-all: setup-dev
	@echo '[test-all] hours on two cores: every slow test, then every extra from the wheel in an environment of its own (gigabytes)'
	$(PYTEST)
	$(VENV_PYTHON) scripts/extras_check.py

answers: setup-dev
	$(VENV_PYTHON) scripts/make_answers.py

bench: setup-dev
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(VENV_PYTHON) "$$script"; done

clean:
	rm -rf .venv demo scratch build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
