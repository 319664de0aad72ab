# Everything runs in .venv, which PYTHON makes when it is missing, older than
# requirements.txt, or made by another Python. TESTS chooses what is tested:
#   make PYTHON=python3.13 TESTS=tests/pool_test.py test
PYTHON ?= python3
REQUIREMENTS := requirements.txt
TESTS := tests
SECONDS := 60
KILLS := 50
VENV := .venv
READY := $(VENV)/ready

# Also the same when PYTHON is the one in .venv.
MAKER := $(shell $(PYTHON) -c 'import sys; \
  print(*sys.version_info[:3], sys.base_prefix)' 2>/dev/null)
ifneq ($(MAKER),$(shell cat $(READY) 2>/dev/null))
.PHONY: $(READY)
endif

.DELETE_ON_ERROR:
.PHONY: search search-text benchmark test test-lowest soak fuzz lint docs wheel clean

search: $(READY)
	$(VENV)/bin/python -m experiments.search_cnn \
	  --preset=digits_nasbench201 --workdir=runs/digits

search-text: $(READY)
	$(VENV)/bin/python -m experiments.search_rnn \
	  --preset=demo --workdir=runs/text

benchmark: $(READY)
	$(VENV)/bin/python -m experiments.compare_strategies \
	  --trials=20 --budget=150 --json=runs/strategies.json

test: $(READY)
	$(VENV)/bin/python -m pytest -rs -n 2 --dist worksteal --durations=15 \
	  $(TESTS)

# With the lowest versions that setup.cfg allows.
test-lowest: build/lowest/requirements.txt
	@$(MAKE) --no-print-directory VENV=build/lowest/venv REQUIREMENTS=$< test

build/lowest/requirements.txt: setup.cfg tests/lowest.py
	@mkdir -p $(@D)
	@$(PYTHON) -m tests.lowest > $@

soak: $(READY)
	$(VENV)/bin/python -m tests.soak --kills=$(KILLS)

# Bytes for every reader of files, for so many seconds each.
fuzz: $(READY)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check 'atheris>=3.0,<4'
	$(VENV)/bin/python -m tests.fuzz --seconds=$(SECONDS) --json=build/fuzz.json

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Installed into an empty environment, and used there.
wheel: $(READY)
	.ci/wheel

# The site in build/site; a warning is an error (--quiet would hide it).
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "open build/site/index.html"

$(VENV)/docs: $(READY) requirements-docs.txt
	@$(VENV)/bin/pip install -qq --disable-pip-version-check \
	  -r requirements.txt -r requirements-docs.txt
	@touch $@

$(READY): $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; \
	  sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "error: PYTHON=$(PYTHON): $$($(PYTHON) --version 2>&1)," \
	    "nao_jax runs on Python 3.11, 3.12 and 3.13" >&2; exit 1; }
	@echo "installing $(REQUIREMENTS) into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check \
	  -r $(REQUIREMENTS)
	@echo "$(MAKER)" > $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
