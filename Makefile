# Two commands matter: `make up` and `make test`. Everything lives in .venv and $GAP_DATA.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PYTHONPATH := $(CURDIR)

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Gapscope wants Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	@# torch first: it then takes the CPU build where one is at hand, and timm installs nothing more
	@echo "Installing into $(VENV) (a few minutes the first time) …"
	$(PIP) setuptools torch==2.13.0
	$(PIP) --no-build-isolation -e .
	@# a first load compiles the loader's loops, which takes seconds that nobody should meet later
	@mkdir -p $(VENV)/first && printf 'path,label,0\na,0,0.5\nb,1,2\n' > $(VENV)/first/train_x.csv
	@GAP_DATA=$(VENV)/first/data $(BIN)/python -m etl $(VENV)/first >/dev/null && rm -r $(VENV)/first
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.installed
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# covered to the last branch: the loader with the opening of image files, who is let in, states of jobs
COVERED_WHOLE := etl/*,service/jobs/*,service/door/token.py,service/door/origin.py,service/door/entrance.py

.PHONY: help install up sql test test-long test-full test-science mutants bench bench-full lint docs audit-dependencies sbom
install: $(VENV)/.installed  ## make .venv, nothing else

up: install  ## install, load the demo where there is no database, serve until Ctrl-C
	@$(BIN)/gapscope load --demo-if-empty
	@exec $(BIN)/gapscope serve

sql: install  ## DuckDB CLI on the database, read-only, with the results attached
	@exec $(BIN)/gapscope sql

test: $(VENV)/.dev-installed  ## all tests but the long ones, with branch coverage
	$(BIN)/python -m pytest -n 2 -m "not long and not slow and not science" --cov --cov-report=term
	$(BIN)/python -m coverage report --include='$(COVERED_WHOLE)' --fail-under=100

test-long: $(VENV)/.dev-installed  ## what takes longer and is told at each change all the same
	$(BIN)/python -m pytest -n 2 -m long

test-full: $(VENV)/.dev-installed  ## all tests but the simulator's
	$(BIN)/python -m pytest -n 2 -m "not science"

test-science: $(VENV)/.dev-installed  ## the explanations against worlds whose truth is known
	$(BIN)/python -m pytest -m science
	$(BIN)/python -m tests.science.coverage
	$(BIN)/python -m tests.science.hypotheses
	$(BIN)/python -m tests.science.placebo
	$(BIN)/python -m tests.science.imagenet_v2
	$(BIN)/python -m tests.science.sealing

mutants: $(VENV)/.dev-installed  ## mutants of what decides, and how many the quick tests kill (a quarter of an hour)
	env -u PYTHONPATH nice $(BIN)/mutmut run
	$(BIN)/python -m tests.mutants

bench: $(VENV)/.dev-installed  ## loader and heads beside DuckDB, pandas, scikit-learn, faiss
	$(BIN)/python -m tests.bench.load
	$(BIN)/python -m tests.bench.heads
	$(BIN)/python -m tests.bench.accuracy

bench-full: $(VENV)/.dev-installed  ## a load and a training near ImageNet's size; ROWS=1281167 is all
	$(BIN)/python -m tests.bench.full $(if $(ROWS),--rows $(ROWS))
	$(BIN)/python -m tests.bench.heads_full --rows $(or $(ROWS),200000)
	$(BIN)/python -m tests.bench.page
	$(BIN)/python -m tests.bench.readers

lint: $(VENV)/.dev-installed  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev-installed  ## regenerate sql/README.md and the marked blocks of README
	$(BIN)/python -m tests.contract.sql_readme
	$(BIN)/python -m tests.contract.readme_blocks

audit-dependencies: $(VENV)/.dev-installed  ## known vulnerabilities of the pinned versions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.contract.audit_dependencies

# a place of its own: what it brings makes each start of an environment with jsonschema seconds longer
build/sbom/bin/cyclonedx-py: constraints.txt
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt cyclonedx-bom
	@touch $@

sbom: $(VENV)/.dev-installed build/sbom/bin/cyclonedx-py  ## bill of materials of what is installed: build/sbom.json
	build/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml -o build/sbom.json $(VENV)
