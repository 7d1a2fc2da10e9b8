# The index of what can be done here. Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN := $(VENV)/.installed-train
DEV := $(VENV)/.installed-dev
PINS := pyproject.toml constraints.txt

export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

demo: $(TRAIN) ## adapt the built-in model over a fading link; writes runs/demo anew
	rm -rf runs/demo
	$(BIN)/airlora run --out runs/demo --link fading:snr_db=10,bandwidth_hz=1e5,doppler_hz=1 --round-period-s 10 \
		--validation-limit 256

test: $(DEV) ## run the tests, warnings being errors
	$(BIN)/python -m pytest

check: $(DEV) ## lint, format and type check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(TRAIN) ## time the adapter against PEFT's LoRA, and the codec; writes runs/bench.json
	$(BIN)/python benchmarks/bench.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(TRAIN): $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[train]"
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[train,dev]"
	@touch $(TRAIN) $@
