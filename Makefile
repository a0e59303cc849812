# Every target sets up what it needs by itself: a virtual environment in .venv, built with the
# first Python of 3.11 or newer that works. `make PYTHON=python3.12 test` chooses another one.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench torture clean FORCE

VENV := .venv
BIN := $(VENV)/bin
PLACE := $(VENV)/.made-by-make
VENV_STAMP := $(VENV)/.stamp-venv
PACKAGE := $(VENV)/.stamp-package
DEV := $(VENV)/.stamp-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet -c constraints.txt
CODE := khlone plugins tests benchmarks

# Each test drives real processes of its own, and waits for some: three workers keep two cores busy.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= 3
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
	  printf '  make %-9s %s\n' "$$name" "$$text"; done

demo: $(PACKAGE) ## The tour on a throw-away repository; REPO=PATH runs it on a copy of that one
	@PATH="$$(cd $(BIN) && pwd):$$PATH" sh docs/tour.sh

test: check ## check, then every test
	@$(BIN)/python -m pytest -n auto --dist worksteal

check: $(DEV) ## Format, lint, types and the import contracts
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# As a user has it: installed, not linked to this checkout, whose folders change all the time.
bench: $(VENV_STAMP) ## Comparisons against plain git, as ratios; WHAT="create race" runs some
	@$(BIN)/python -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip --disable-pip-version-check --no-input install --quiet -c constraints.txt .
	@$(VENV)/bench/bin/python -m benchmarks $(WHAT)

torture: $(DEV) ## Kill and race for much longer
	@KHLONE_TORTURE=1 $(BIN)/python -m pytest -m "" tests/crash tests/concurrency tests/agents/test_fleet.py tests/properties

clean: ## Remove .venv and everything else that was made here
	@if [ -e $(PLACE) ]; then rm -rf $(VENV); fi
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find khlone plugins tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || :

# An environment that was moved with its checkout, or whose Python is gone, is built again.
ifneq ($(wildcard $(VENV_STAMP)),)
ifneq ($(shell [ "`cat $(PLACE)`" = "$(CURDIR)" ] && $(BIN)/python -c 'print("works")' 2>/dev/null),works)
$(VENV_STAMP): FORCE
endif
endif

$(VENV_STAMP):
	@if [ -e $(VENV) ] && [ ! -e $(PLACE) ]; then \
	  echo "make: $(VENV) was not made by this Makefile: move it away, or choose another with make VENV=DIR" >&2; \
	  exit 1; \
	fi; \
	found=; bare=; \
	for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
	  bare=$$python; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "make: $$bare has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; \
	  exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "make: no Python 3.11 or newer was found: install one (Debian and Ubuntu: apt-get install python3 python3-venv)" >&2; \
	  exit 1; \
	fi; \
	echo "make: setting up $(VENV) with `$$found --version 2>&1`" >&2; \
	rm -rf $(VENV) && mkdir $(VENV) && printf '%s\n' "$(CURDIR)" >$(PLACE) && "$$found" -m venv $(VENV)
	@touch $@

$(PACKAGE): $(VENV_STAMP) pyproject.toml constraints.txt
	@$(PIP) -e .
	@touch $@

$(DEV): $(VENV_STAMP) pyproject.toml constraints.txt
	@$(PIP) -e '.[dev]'
	@touch $(PACKAGE) $@

FORCE:
