# Every target works in a fresh clone: what needs the environment builds it first.
SHELL := bash
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test mutations storm coverage lint format bench graph clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## build .venv in this checkout (Python 3.11 or 3.12; PYTHON=... chooses one)
	@bash deploy/setup.sh

lock: setup  ## compile requirements*.in into pinned requirements*.txt (UPGRADE=1 takes newer versions)
	@bash deploy/lock.sh

demo: setup  ## uploads to search through a real Airflow on 127.0.0.1, until Ctrl-C (ONCE=1 ends by itself)
	@$(BIN)/python deploy/demo.py $(if $(ONCE),--once)

test: setup  ## lint, types, contracts and all tests; stops at the first failure
	@bash deploy/test.sh

mutations: setup  ## 5,000 damaged uploads and 200 histories, with a scoreboard (half an hour)
	@MUTATIONS=5000 HISTORIES=200 $(BIN)/pytest -q -s tests/storm/test_mutations.py tests/storm/test_histories.py

storm: setup  ## crashes, faults, races and damage in their long form, with a scoreboard (BOARD=file keeps it; under 50 minutes on two cores)
	@STORM=1 STORM_BOARD=$(abspath $(BOARD)) $(BIN)/pytest -q $(addprefix tests/storm/test_,crashes.py s3_faults.py races.py damage.py machine.py)

coverage: setup  ## branch coverage of the modules that move and commit: all of it, by tests/unit and tests/integration
	@$(BIN)/coverage run -m pytest -q tests/unit tests/integration
	@$(BIN)/coverage report --show-missing --fail-under=100

lint: setup  ## only the checks that run no code
	@bash deploy/test.sh --lint-only

format: setup  ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: setup  ## run every benchmark and print what it measured
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python "$$file"; done

graph: setup  ## draw the import graph into docs/house.svg (needs graphviz; errors and settings are left out)
	@$(BIN)/import-linter drawgraph akosha | grep -v '"\.errors"\|"\.settings"' | dot -Tsvg > docs/house.svg

clean:  ## remove caches; .venv and the demo's lake stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
