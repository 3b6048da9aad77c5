# make report: set up, run the notebooks on the embedded cohort, leave report/index.html
# make test:   set up, run the tests
# Another Python: make PYTHON=python3.12 report. Other options: make report DATASET=kermany DATA_DIR=… PRESET=full

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DATASET ?= phantom
DATA_DIR ?=
PRESET ?= course
SEED ?= 0
JOBS ?= 2
OUT ?= report
ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help install report notebooks student test bench peers types lab lock clean distclean
.DEFAULT_GOAL := help

help: ## show this list
	@echo "Targets:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "make report takes DATASET, DATA_DIR, PRESET (smoke, course, full), SEED, JOBS, OUT and ARGS, as in"
	@echo "  make report DATASET=kermany DATA_DIR=/data/chest_xray PRESET=full ARGS=--fresh"

install: $(STAMP) ## create .venv and install the packages (first time: 3-8 minutes)

# The stamp is newer than what it was made from, so a second call does nothing, and needs no network.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cxrlib needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || echo missing)."; \
	  echo "What to do: install one and name it, as in: make PYTHON=python3.12 $(or $(MAKECMDGOALS),report)"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating the virtual environment in $(VENV) (10 seconds) ..."; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "What to do: install the venv module (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }; }
	@echo "Installing the packages (on Linux 3 GB to fetch, 6.5 GB on disk; 3-8 minutes the first time) ..."
	@# -qq: errors only. --no-deps: the lock names every package there is to install
	@$(PIP) install -qq --no-deps -r requirements.lock
	@# setuptools came with the lock, so that this step needs no network
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed in $(VENV). To have cxr and papermill at hand: source $(BIN)/activate"

report: $(STAMP) ## run the notebooks and render report/index.html (3-6 minutes, the first page after one)
	@$(BIN)/cxr report --dataset $(DATASET) $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") --preset $(PRESET) \
	  --seed $(SEED) --jobs $(JOBS) --out "$(OUT)" $(ARGS)

test: $(STAMP) ## run the tests (about 12 minutes on two cores; ARGS="-k metrics" for some of them)
	@echo "Running the tests (about 12 minutes on two cores) ..."
	@$(if $(CXRLIB_DATA),,echo "CXRLIB_DATA is not set: tests on real radiographs are skipped.")
	@# a process a core with one thread each: threads of small products wait for each other, and so do a
	@# process's own workers; files in the order that tests/conftest.py gives them, the longest first
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} LOKY_MAX_CPU_COUNT=$${LOKY_MAX_CPU_COUNT:-1} \
	  $(BIN)/python -m pytest -n logical --dist loadscope --no-loadscope-reorder $(ARGS)

bench: $(STAMP) ## measure speed beside other people's ways, and a report (twenty minutes on a quiet machine)
	@$(BIN)/python -m benchmarks.speed $(ARGS)

peers: $(STAMP) ## measure the audit beside other tools, in environments of their own (two hours, 12 GB)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/audit_peers.py $(ARGS)

types: $(STAMP) ## check the types (a minute or two the first time)
	@$(BIN)/python -m mypy

notebooks: report ## give notebooks/ the outputs of the report (before a commit)
	@$(BIN)/python -c "from cxrlib.report.course import keep_outputs; keep_outputs('$(OUT)')"

student: $(STAMP) ## write notebooks-student/: the chapters without solutions and outputs, to hand out
	@$(BIN)/python -c "from cxrlib.report.course import hand_out; print(*hand_out('notebooks-student'), sep='\n')"

# notebooks/.jupyter switches off what would ask a server for news, newer versions and extensions.
lab: $(STAMP) ## open the notebooks in JupyterLab
	@JUPYTER_CONFIG_PATH="$(CURDIR)/notebooks/.jupyter" $(BIN)/python -m jupyterlab notebooks/00_start_here.ipynb $(ARGS)

lock: $(STAMP) ## renew requirements.lock from pyproject.toml (needs the network)
	@echo "Resolving the newest versions that pyproject.toml allows (1 minute) ..."
	@$(PIP) install -qq uv
	@$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra course --extra dev \
	  --no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements.lock

clean: ## remove the report and what tools leave behind; the environment stays
	@rm -rf report build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find cxrlib tests notebooks -name __pycache__ -prune -exec rm -rf {} + -o \
	  -name .ipynb_checkpoints -prune -exec rm -rf {} + 2>/dev/null || true
	@echo "Cleaned. The virtual environment is still in $(VENV): 'make distclean' removes it too."

distclean: clean ## also remove the virtual environment
	@rm -rf $(VENV)
