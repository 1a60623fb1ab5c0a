# Two commands matter: `make chat` and `make test`. Both do all the set-up themselves.
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.swarm-installed

.PHONY: chat test build oracles check clean

chat: $(STAMP)
	@$(BIN)/swarm chat $(MODEL)

test: $(STAMP)
	$(BIN)/python -m pytest

# Other implementations to compare with (torch, transformers, llama-cpp-python): large, optional.
oracles: $(STAMP)
	tools/install-oracles $(BIN)

build: $(BIN)/python
	@flock $(VENV)/.build.lock $(BIN)/python setup.py -q build_ext --inplace

check: $(STAMP)
	tools/check

$(BIN)/python:
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(STAMP): $(BIN)/python pyproject.toml setup.py $(wildcard csrc/*.c csrc/*.h csrc/*.inc csrc/*.pyx)
	$(BIN)/python -m pip install -q --editable '.[test]'
	@touch $(STAMP)

clean:
	rm -rf build dist *.egg-info swarm/kernels/*.so csrc/_native.c $(VENV)
