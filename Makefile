# Two commands matter: `make demo` (the whole flow on synthetic CT) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: start demo test lint unit docs kill-prepare fuzz catalogue-large bench-evaluate clean

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

# Reads 10,000 mutated NIfTI and DICOM files and writes benchmarks/results/fuzz.json.
fuzz: $(VENV)/.installed
	$(BIN)/python -m benchmarks.fuzz_readers

# Reads volumes of 512 x 512 x 1500 and 1024 x 1024 x 800 voxels in the stated memory.
catalogue-large: $(VENV)/.installed
	CTSCRIBE_LARGE=1 $(BIN)/pytest tests/catalogue/test_limits.py -k large

# With pycocoevalcap 1.2 on PYTHONPATH it also compares the values and ROUGE-L's speed.
bench-evaluate: $(VENV)/.installed
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/bench_evaluate.py

# The marker is written last, so an interrupted installation is repeated.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) runs/demo
