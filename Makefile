# Two commands matter: `make demo` (the whole flow on synthetic CT) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE ?= $(HOME)/.cache/ctscribe/pycocoevalcap-1.2
PEERS ?= $(or $(TMPDIR),/tmp)/ctscribe-peers
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo start test lint unit docs kill-prepare fuzz catalogue-large bench-evaluate \
	oracle blind-baselines bench-negatives bench-train export-check labeler \
	study-objectives bench-prepare bench-slice-attention study-slices clean

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

docs: $(VENV)/.installed  ## docs/errors.md, then all pages into site/
	$(BIN)/python -m docs.make_errors
	$(BIN)/zensical build --strict

# Kills `prepare` at a hundred random moments; each must end as an undisturbed run.
kill-prepare: $(VENV)/.installed
	CTSCRIBE_KILLS=100 $(BIN)/pytest tests/prepare -k killed

# Reads 10,000 mutated NIfTI and DICOM files and writes benchmarks/results/fuzz.json.
fuzz: $(VENV)/.installed
	$(BIN)/python -m benchmarks.fuzz_readers

# Reads volumes of 512 x 512 x 1500 and 1024 x 1024 x 800 voxels in the stated memory.
catalogue-large: $(VENV)/.installed
	CTSCRIBE_LARGE=1 $(BIN)/pytest tests/catalogue/test_limits.py -k large

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

bench-negatives: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_negatives.py

# A plain trainer against ours, lever by lever. On a GPU: BENCH="--preset qwen2.5-vl-7b --device cuda".
bench-train: $(VENV)/.installed
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/bench_train.py $(BENCH)

# Exported weights and adapters, read by transformers 4.57 beside the locked release: the same logits.
OLDER := runs/export-check
export-check: $(VENV)/.installed
	rm -rf $(OLDER) && mkdir -p $(OLDER)
	$(BIN)/python benchmarks/export_check.py write $(OLDER)
	$(BIN)/python benchmarks/export_check.py read $(OLDER)
	$(PYTHON) -m venv $(OLDER)/venv
	$(OLDER)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps \
		transformers==4.57.6 tokenizers==0.22.2 huggingface_hub==0.36.2
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$($(OLDER)/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth
	$(OLDER)/venv/bin/python benchmarks/export_check.py read $(OLDER)

# Agreement with people and speed, into docs/results/labeler.md; the reports are not shipped.
REPORTS ?= ../shared/data/ct_rate_text/labelled_reports_800.csv
labeler: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/labeler_agreement.py $(REPORTS)

# Which negatives help? Resumes where it stopped; about 3 hours on 2 idle cores.
study-objectives: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study_objectives.py

# Against other libraries, which get an environment of their own outside the tree.
bench-prepare: $(VENV)/.installed $(PEERS)/.installed
	$(BIN)/python benchmarks/bench_prepare.py $(PEERS)

$(PEERS)/.installed: benchmarks/prepare_peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# What finding queries add to a training step.
bench-slice-attention: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_slice_attention.py

# Finding queries: labels, evidence, confidence, shares of boxes, into docs/results/slice_aware.md.
# About three hours on two cores, 25 GB on disk; interrupted, it goes on where it stopped.
study-slices: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study_nodules.py --out runs/study-nodules
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study_slices.py --out runs/study-slices

# The marker is written last, so an interrupted installation is repeated.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) runs/demo site .cache
