# Everything runs from .venv, which is installed from requirements.lock once, and again when the lock changes.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
QFX := $(VENV)/bin/qfx
STAMP := $(VENV)/.installed

# What the targets are about; set on the command line: make hls BOARD=zcu104 MODEL=net.qfx
DATA ?= digits
BOARD ?=
MODEL ?= build/demo/network.qfx
IO ?= parallel
INTERVAL ?=
OUT ?= build/$(notdir $(basename $(MODEL)))
PYTEST_ARGS ?=

PYTEST := $(PY) -m pytest -n 2 --dist worksteal
TARGET = $(if $(BOARD),--board "$(BOARD)")
FOLD = $(TARGET) $(if $(INTERVAL),--interval $(INTERVAL))

.PHONY: help setup system model doctor demo test test-slow test-all hls rtl sim verify cost bench fuzz lint docs wheel lock clean distclean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/  make \1\t\2/' | expand -t 18
	@echo "  Variables: DATA=$(DATA) BOARD=$(BOARD) MODEL=$(MODEL) IO=$(IO) INTERVAL=$(INTERVAL) PYTEST_ARGS=$(PYTEST_ARGS)"

setup: $(STAMP)  ## create .venv and install into it, if that is not done

doctor: $(STAMP)  ## check programs, packages and vendor tools
	$(QFX) doctor

demo: $(STAMP) doctor  ## train, convert, verify and cost a network; DATA=digits, fashion-mnist or a path
	$(QFX) demo --data "$(DATA)" $(TARGET) --out build/demo

test: $(STAMP)  ## the tests, without the slow ones
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP)  ## the slow tests alone
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-all: $(STAMP)  ## all tests
	$(PYTEST) $(PYTEST_ARGS)

hls: $(STAMP) model  ## write the HLS project of MODEL for BOARD, IO=parallel or stream
	$(QFX) hls "$(MODEL)" $(TARGET) --io "$(IO)" --out "$(OUT)/hls-$(or $(BOARD),generic)-$(IO)"

rtl: $(STAMP) model  ## write the Verilog of MODEL, for BOARD or for INTERVAL cycles per frame
	$(QFX) rtl "$(MODEL)" $(FOLD) --out "$(OUT)/rtl"

sim: $(STAMP) model  ## simulate the Verilog of MODEL against the integer graph
	$(QFX) sim "$(MODEL)" $(FOLD) --out "$(OUT)/sim"

verify: $(STAMP) model  ## compare HLS C simulation and RTL simulation of MODEL with the integer graph
	$(QFX) verify "$(MODEL)"

cost: $(STAMP) model  ## count LUT, FF, CARRY, DSP and BRAM of MODEL with Yosys, per layer
	$(QFX) cost "$(MODEL)" $(FOLD) --out "$(OUT)/cost"

fuzz: $(STAMP)  ## verify random networks
	$(QFX) fuzz --networks 20 --seed 1

bench: $(STAMP)  ## run the benchmarks; results in build/benchmarks
	@mkdir -p build/benchmarks
	@set -e; for script in benchmarks/*.py; do \
		name=$$(basename "$$script" .py); echo "== $$name"; \
		$(PY) "$$script" --json > "build/benchmarks/$$name.json.part"; \
		mv "build/benchmarks/$$name.json.part" "build/benchmarks/$$name.json"; cat "build/benchmarks/$$name.json"; \
	done

# mypy knows nothing of package-dir, so it reads the packages through a tree of links that looks as installed.
lint: $(STAMP)  ## ruff and mypy
	$(VENV)/bin/ruff check .
	@rm -rf build/types && mkdir -p build/types/qfx
	@ln -s "$(CURDIR)"/qfx/* build/types/qfx/
	@for package in hls rtl sim boards; do ln -s "$(CURDIR)/$$package" build/types/qfx/; done
	cd build/types && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml --cache-dir ../.types_cache -p qfx

docs: $(STAMP)  ## build the site into build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

wheel: $(STAMP)  ## build a wheel into build/dist
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/dist .

clean:  ## remove what was built
	rm -rf build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv too
	rm -rf $(VENV)

model:
	@test -f "$(MODEL)" || { \
		echo "$(MODEL) is not there: run 'make demo' first, or name a graph with MODEL=path/to/file.qfx" >&2; exit 1; }

# Before minutes of installing: is there a Python that can, and the programs that everything else needs?
system:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "$(PYTHON) is not on PATH. Debian or Ubuntu: apt-get install -y python3 python3-venv;" >&2; \
		echo "another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); 3.11 or newer is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments. Debian or Ubuntu: apt-get install -y python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m qfx.doctor

# Dependencies that only come along are pinned in the lock too, so nothing is resolved here.
$(STAMP): requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory system
	@echo "Installing into $(VENV) from requirements.lock; this happens once and takes some minutes."
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# After a change in pyproject.toml: install what it asks for into a fresh .venv, try it, then write it down.
lock: $(STAMP)  ## write requirements.lock from what is installed in .venv
	@{ sed '/^#/!d' requirements.lock; \
		$(PY) -m pip freeze --all --exclude-editable --exclude pip | grep -v '^#' | sed -E 's/\+[a-z0-9.]+$$//'; \
	} > requirements.lock.part && mv requirements.lock.part requirements.lock
