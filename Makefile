# Two commands matter: `make demo` (the whole flow on synthetic CT) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE ?= $(HOME)/.cache/ctscribe/pycocoevalcap-1.2
PEERS ?= $(or $(TMPDIR),/tmp)/ctscribe-peers
OLDER ?= $(or $(TMPDIR),/tmp)/ctscribe-older
ENDS ?= $(or $(TMPDIR),/tmp)/ctscribe-ends
SERVER ?= $(or $(TMPDIR),/tmp)/ctscribe-server
BESIDE := $(if $(filter prepare,$(NAME)),$(PEERS))$(if $(filter export,$(NAME)),$(OLDER))
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo start test long serve-test ends lowest newest lint docs clean bench study oracle

demo: $(VENV)/.installed
	$(BIN)/ctscribe demo --out runs/demo

start: $(VENV)/.installed  ## the demo's starting checkpoint, about 20 minutes on 2 cores
	rm -rf starts/tiny
	$(BIN)/ctscribe warm-up starts/tiny --recipe tiny

# Two workers with two threads each would wait for one another on two cores.
test: export OMP_NUM_THREADS := 1
test: lint
	$(BIN)/pytest -n 2 --dist loadfile -m "not long"

long: $(VENV)/.installed  ## the tests that take minutes each: several processes, kills, adversaries
	$(BIN)/pytest -n 2 --dist loadfile -m long

# All direct dependencies at the lowest and at the newest release that pyproject allows, each in an
# environment of its own (7 GB, as PyPI's torch brings CUDA), and the quick tests of every wing there;
# half an hour each. Warnings of other releases are no errors, and annotations are not checked.
ends: lowest newest
lowest newest: %: $(ENDS)/%/.installed
	PYTHONPATH=src:. OMP_NUM_THREADS=1 $(ENDS)/$@/bin/python -m pytest -q -W default -o addopts= \
		--import-mode=importlib -p no:cacheprovider -m "not slow and not long" \
		$(addprefix tests/,base text scan data phantom learn write measure show cli)

$(ENDS)/%/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(ENDS)/$*
	$(if $(filter lowest,$*),$(PYTHON) -m tests.lowest >,touch) $(ENDS)/$*/constraints.txt
	$(ENDS)/$*/bin/pip install --quiet --disable-pip-version-check -c $(ENDS)/$*/constraints.txt \
		-e ".[dicom-codecs,dicom-sr,ray,serve,slurm]" \
		beartype fhir.resources httpx2 hypothesis jsonschema pytest
	touch $@

# Reports by a real server, `transformers serve`, killed half-way and started again.
serve-test: $(SERVER)/.installed
	CTSCRIBE_SERVER_PYTHON=$(SERVER)/bin/python $(BIN)/pytest -rs -k real_server tests/write/test_served.py

# torchvision stays out of the project's own environment: its compiled parts need another torch.
$(SERVER)/.installed: tests/transformers_server.txt | $(VENV)/.installed
	$(call beside-the-project,$(SERVER),-r $<)

# An environment of its own for some packages, which are found before the project's.
define beside-the-project
$(PYTHON) -m venv $(1)
$(1)/bin/pip install --quiet --disable-pip-version-check --no-deps $(2)
$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	> $$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth
touch $(1)/.installed
endef

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## docs/errors.md, then all pages into site/
	$(BIN)/python -m docs.make_errors
	$(BIN)/zensical build --strict

# What something costs, beside an alternative in the same run, into results/: make bench NAME=fuzz
# Names: evaluate, yardstick, scale, negatives, train, slice_attention, prepare, labeler, blind, fuzz,
# export, contrast, card, intervals, selfcheck, page, ct_rate, real-size.
# labeler, blind, intervals and selfcheck read ARGS=reports.csv, and keep what is there without it;
# page reads ARGS="series niivue.umd.js"; train takes ARGS="--preset qwen2.5-vl-7b --device cuda";
# real-size takes minutes and 25 GB of disk, and goes on where it stopped.
bench: export OMP_NUM_THREADS := $(if $(filter evaluate train real-size,$(NAME)),2,1)
bench: $(addsuffix /.installed,$(VENV) $(BESIDE) $(if $(filter evaluate yardstick,$(NAME)),$(ORACLE)))
	PYTHONPATH=$(ORACLE):$(PYTHONPATH) $(BIN)/python -m benchmarks.bench_$(subst -,_,$(NAME)) $(BESIDE) $(ARGS)

# Arms and seeds on phantoms, into results/ and docs/results/: make study NAME=objectives
# Names: objectives, holds, say, paper, slice_aware, nodules, slabs; one to four hours each, resumed
# where stopped. ARGS=--page makes the page alone.
study: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.study_$(NAME) $(ARGS)

# Our language scores against pycocoevalcap's, METEOR's Java included.
oracle: $(VENV)/.installed $(ORACLE)/.installed
	PYTHONPATH=$(ORACLE):$(PYTHONPATH) CTSCRIBE_ORACLE=1 $(BIN)/pytest -rs tests/measure/test_language.py

# pycocoevalcap may not be passed on, so it is put beside the project and never required.
$(ORACLE)/.installed: | $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(ORACLE) pycocoevalcap==1.2
	touch $@

# Other libraries get an environment of their own outside the tree.
$(PEERS)/.installed: benchmarks/prepare_peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Another release of transformers beside the project's other packages; they are found after it.
$(OLDER)/.installed: | $(VENV)/.installed
	$(call beside-the-project,$(OLDER),transformers==4.57.6 tokenizers==0.22.2 huggingface_hub==0.36.2)

# The marker is written last, so an interrupted installation is repeated.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) runs/demo site .cache
