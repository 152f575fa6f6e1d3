# make demo    run ProMerge on real photographs and say how to look at the masks
# make test    run the tests
# make soak    fifty kills of workers, driver and database in a run on Ray; fifteen minutes
# make oldest  the tests that use FiftyOne, with the oldest that is supported
# make lint    ruff and mypy
# make types   mypy alone
# make coverage  the tests, and how much of the code they run; what CI runs
# make release-check  sdist and wheel: checked, installed in empty environments (5 GB each), run
# make clean   remove the environments and what was built
#
# Everything happens in .venv, made on first use; PYTHON=python3.12 chooses its Python (3.10 to 3.14).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
EXTRAS ?= dev
# What is imported is compiled then, and once; most of what is installed never is.
unexport PYTHONDONTWRITEBYTECODE
PIP := python -m pip install --quiet --disable-pip-version-check --no-compile
# UV=1 lets uv install, in half of pip's time; it reads none of pip's settings.
INSTALL = $(if $(UV),uv pip install --quiet --python $(BIN)/python,$(PIP))
OLDEST := .venv-oldest
# Operators and plugin are one package in FiftyOne; linked together, they are one for mypy, too.
PLUGIN := build/mypy/promerge_plugin
# Processes that run tests side by side, each with a database of its own.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count(), 4))')
PYTEST = -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test coverage soak oldest lint types wheel release-check clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 14) or sys.exit(f"Python 3.10 to 3.14 is wanted, $(PYTHON) is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	@echo "Making the environment $(VENV): PyTorch and FiftyOne, some 5 GB, a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(if $(UV),$(BIN)/$(PIP) uv)
	@$(BIN)/$(INSTALL) -e '.[$(EXTRAS)]'
	@echo "Looking for FiftyOne's database server"
	@$(BIN)/promerge doctor --install-mongod
	@echo "Compiling the kernels, once, and looking at what works here"
	@$(BIN)/promerge doctor || true
	@touch $@

demo: $(READY)
	@$(BIN)/promerge demo

# The comparison with the authors' CRF compiles it, where there is a compiler; otherwise it skips.
test: $(READY)
	@$(BIN)/python -c 'import ray.data' 2>/dev/null || { \
		echo "Installing Ray, for the tests of runs on several machines"; \
		$(BIN)/$(PIP) -e '.[cluster]' \
			|| echo "It could not be installed; the tests that need it will skip"; \
	}
	@if command -v c++ >/dev/null && $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))' \
		&& ! $(BIN)/python -c 'import pydensecrf' 2>/dev/null; then \
		echo "Compiling the reference CRF, to compare with"; \
		$(BIN)/$(PIP) -e '.[crf-reference]' \
			|| echo "It did not compile; the tests that compare with it will skip"; \
	fi
	@$(BIN)/python $(PYTEST) $(ARGS)

coverage: override ARGS += --cov
coverage: test

soak: $(READY)
	@$(BIN)/$(PIP) -e '.[cluster]'
	@$(BIN)/python -m benchmarks soak

# The first FiftyOne with a brush for masks, and two packages that it needs and does not declare.
oldest:
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/$(PIP) \
		-e '.[dev,app-tests]' 'fiftyone==1.18.0' 'graphql-core<3.3' 'protobuf>=7.35'
	@$(OLDEST)/bin/promerge doctor --install-mongod
	@$(OLDEST)/bin/python $(PYTEST) tests/dataset tests/operators tests/app $(ARGS)

lint: $(READY) types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@rm -rf build/mypy && mkdir -p $(PLUGIN)
	@ln -s $(CURDIR)/plugin/*.py $(CURDIR)/operators $(PLUGIN)
	@MYPYPATH=build/mypy $(BIN)/mypy -p promerge_fo -p promerge_plugin -p benchmarks

wheel: $(READY)
	@$(BIN)/python -m build --quiet --wheel

# Needs no environment but its own; ARGS=--quick leaves out to install and run.
release-check:
	@$(PYTHON) .ci/release_check.py $(ARGS)

clean:
	@rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
