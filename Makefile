# Two commands matter: `make chat` and `make test`. Both do all the set-up themselves.
#   make chat MODEL=path.gguf     another model
#   PY=python3.12 make test       another Python
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.swarm-installed
SOURCES := $(wildcard csrc/*.c csrc/*.h csrc/*.inc csrc/*.pxi csrc/*.pyx)

.PHONY: chat demo test build oracles check clean

chat: $(STAMP)
	@$(BIN)/swarm chat $(MODEL)

# Three nodes on this machine, one of them killed in the middle of an answer.
demo: $(STAMP)
	@$(BIN)/python tools/demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -q $(TESTS)

# Other implementations to compare with (torch, transformers, llama-cpp-python): large, optional.
oracles: $(STAMP)
	@tools/install-oracles $(BIN)/python

# Compile again after a change, faster than an installation; `make test` and `make chat` see changes by themselves.
build:
	@test -e $(STAMP) || $(MAKE) $(STAMP)
	@flock $(VENV)/.build.lock $(BIN)/python setup.py -q build_ext --inplace

# What a commit needs: formatting, lint, types, the quick tests.
check: $(STAMP)
	@tools/check $(BIN)

$(BIN)/python:
	@tools/prerequisites $(PY)
	@echo "Setting up $(VENV), once: a minute or two on a PC, five on a Raspberry Pi 5"
	@tools/waiting "Making the environment" $(PY) -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml constraints.txt setup.py $(SOURCES)
	@tools/prerequisites $(BIN)/python
	@tools/install $(BIN)/python
	@touch $(STAMP)

clean:
	rm -rf build dist *.egg-info swarm/*/*.so csrc/_*.c $(VENV)
