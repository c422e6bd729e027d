# Two commands do everything: `make run` and `make test`. `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Not compiled: Python does that to what is imported, a small part of it all.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Hundreds of processes of the tests and of DVC's stages would each compile anew what they import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run test test-hard lint format up benchmark lock audit clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## make the virtual environment from the lock file

$(STAMP): requirements.lock requirements-carried.txt pyproject.toml
	# torch with what its build for this machine depends on; all else is named in the lock file
	test -x $(BIN)/python || python3.11 -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) --constraint requirements.lock torch==2.13.0
	$(PIP) --no-deps -r requirements.lock -r requirements-carried.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $(STAMP)

run: install ## train, compare and register the models of params.yaml; quick when nothing changed
	lectern run

test: install lint ## lint and tests
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-hard: install ## kill, starve, flood and mislead it: long, and not part of `make test`
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder -v -m hard

lint: install ## style and imports
	ruff check .
	ruff format --check .

format: install ## put the style right
	ruff check --fix .
	ruff format .

up: install ## MLflow, Prefect and the nightly run, until Ctrl-C
	lectern up

benchmark: install ## measure the data path (benchmarks/ holds the rest)
	python benchmarks/data_path.py

lock: ## pin every dependency anew
	python3 -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0 pip-tools
	.venv-lock/bin/pip-compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --allow-unsafe --output-file requirements.lock pyproject.toml
	sed -i 's/^torch==\(.*\)+.*/torch==\1/' requirements.lock  # the build for this machine is for pip to choose
	rm -rf .venv-lock

audit: ## known vulnerabilities of what the lock file pins, as PyPI has them
	python3 -m venv --clear .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --disable-pip --no-deps --strict -r requirements.lock
	rm -rf .venv-audit

clean: ## remove the virtual environment
	rm -rf $(VENV)
