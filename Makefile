# Two commands matter: `make demo` (the whole flow on synthetic CT) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE ?= $(HOME)/.cache/ctscribe/pycocoevalcap-1.2
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: start demo test lint unit docs kill-prepare bench-evaluate oracle blind-baselines clean

demo: $(VENV)/.installed
	$(BIN)/ctscribe demo --out runs/demo

start: $(VENV)/.installed  ## the demo's starting checkpoint, about 20 minutes on 2 cores
	rm -rf starts/tiny
	$(BIN)/ctscribe warm-up starts/tiny --recipe tiny

test: lint unit

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed
	$(BIN)/pytest -n 2 --dist loadfile

docs: $(VENV)/.installed
	$(BIN)/python docs/make_errors.py

# Kills `prepare` at a hundred random moments; each must end as an undisturbed run.
kill-prepare: $(VENV)/.installed
	CTSCRIBE_KILLS=100 $(BIN)/pytest tests/test_prepare.py -k killed

bench-evaluate: $(VENV)/.installed $(ORACLE)/.installed
	PYTHONPATH=$(ORACLE):$(PYTHONPATH) OMP_NUM_THREADS=2 $(BIN)/python benchmarks/bench_evaluate.py

# Our language scores against pycocoevalcap's, METEOR's Java included.
oracle: $(VENV)/.installed $(ORACLE)/.installed
	PYTHONPATH=$(ORACLE):$(PYTHONPATH) CTSCRIBE_ORACLE=1 $(BIN)/pytest -rs \
		tests/evaluate/test_language.py tests/evaluate/test_meteor.py

# pycocoevalcap may not be passed on, so it is put beside the project and never required.
$(ORACLE)/.installed: | $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(ORACLE) pycocoevalcap==1.2
	touch $@

# What a report writer scores without looking, on labelled reports: make blind-baselines REPORTS=file.csv
blind-baselines: $(VENV)/.installed
	$(BIN)/python benchmarks/blind_baselines.py $(REPORTS)

# The marker is written last, so an interrupted installation is repeated.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) runs/demo
