# `make quickstart` and `make test` are all a newcomer needs; both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
ZOO := $(VENV)/.zoo
DEV := $(VENV)/.dev
INSTALL := $(RUN) -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt

# Bytecode is kept, even where Python is told to write none: without it each process spends seconds on compiling PyTorch's modules
quickstart test test-slow: export PYTHONDONTWRITEBYTECODE :=
quickstart test test-slow: export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode

.PHONY: quickstart test test-slow gpu-check check reference format clean

quickstart: $(ZOO)
	$(RUN) -m zoo quickstart $(ARGS)

# A file's tests run in one process: what they share is made once
test: $(DEV)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(DEV)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m slow --timeout 3600 $(ARGS)

# On a CUDA machine: installs nothing, and takes .venv if there is one, else PYTHON with what is installed there
gpu-check:
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m zoo gpu-check $(ARGS)

check: $(DEV)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# The API reference, as build/reference/index.html; a reference to something that is not there is an error
reference: $(DEV)
	$(RUN) -m sphinx -q -W --keep-going zoo/reference build/reference $(ARGS)

format: $(DEV)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sb3-genoffline needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(ZOO): pyproject.toml setup.py constraints.txt | $(RUN)
	$(INSTALL) -e ".[zoo]"
	touch $@

$(DEV): pyproject.toml setup.py constraints.txt | $(RUN)
	$(INSTALL) -e ".[zoo,dev]"
	touch $(ZOO) $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
