# `make run` and `make test` do everything. `make help` lists the other targets.

# The first of these that is installed and new enough; another one: make PYTHON=/path/to/python3.12
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Python compiles a module when it is first imported. Most modules never are, so compiling all of them wastes a minute.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
TESTS := pytest -n auto --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(BIN):$(PATH)
# With this variable, each of the many processes of tests and stages would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run test test-quick test-slow test-hard lint format docs wheel up benchmark lock audit clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## create the virtual environment from the lock file

$(BIN)/python:
	@found=$$($(or $(PYTHON),python3) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	case "$$found" in 3.11 | 3.12 | 3.13) ;; \
	*) echo "Lectern needs Python 3.11, 3.12 or 3.13; found $${found:-none}. Run: make PYTHON=/path/to/python3.12" >&2; exit 2 ;; \
	esac
	$(PYTHON) -m venv $(VENV)

$(STAMP): requirements.lock requirements-carried.txt pyproject.toml | $(BIN)/python
	# torch comes last and without a hash: pip picks the build for this machine, and each build has a hash of its own.
	$(PIP) --no-deps --require-hashes -r requirements.lock -r requirements-carried.txt
	$(PIP) torch==2.13.0
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $(STAMP)

run: install ## train, compare and register the models of params.yaml; fast when nothing changed
	lectern run

test test-quick test-slow test-hard: export OMP_NUM_THREADS := 1

test: install lint ## lint, then run the tests and measure their coverage
	# SlipCover instruments only our own code. Stages and commands are processes of their own, which it does not see.
	# The report is a command of its own, because --fail-under empties the report of several processes (SlipCover 1.1.0).
	mkdir -p build
	python -W 'ignore:Unable to activate pytest' -m slipcover --branch --source lectern,flows,pipeline \
		--json --out build/coverage.json -m $(TESTS)
	python -m slipcover --merge build/coverage.json --out build/coverage.json --skip-covered --fail-under 85

test-quick: install ## run the tests that load no heavy library, in under a minute
	python -m $(TESTS) --quick

test-slow: install ## run the tests that take ten seconds or more each; the nightly build runs them too
	python -m $(TESTS) -m slow

test-hard: install ## test crashes, overload, lack of resources and hostile input; takes about an hour
	python -m $(TESTS) -v -m hard

lint: install ## check style, imports and types
	ruff check .
	ruff format --check .
	mypy

format: install ## fix style and imports
	ruff check --fix .
	ruff format .

docs: install ## build the documentation site into site/
	mkdocs build --strict

wheel: install ## build the package into dist/, and check that it imports and has its templates
	rm -rf build dist
	python -m build --wheel --no-isolation
	python -m venv --clear .venv-wheel
	.venv-wheel/bin/pip install --quiet --no-deps dist/*.whl
	.venv-wheel/bin/python -P -c 'import lectern, flows, pipeline.errors; \
		from importlib.resources import files; \
		paths = "data/data_docs.html.j2", "evaluation/report.html.j2", "registry/card.md.j2", "py.typed"; \
		assert all(files(pipeline).joinpath(path).is_file() for path in paths); \
		assert files(flows).joinpath("cluster/kubernetes_pool.json").is_file()'
	rm -rf build .venv-wheel

up: install ## serve MLflow, Prefect and the nightly run until Ctrl-C
	lectern up

benchmark: install ## measure the data path; benchmarks/ has more
	python benchmarks/data_path.py

lock: $(BIN)/python ## update requirements.lock from pyproject.toml; keeps pinned versions that still fit
	$(BIN)/python -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-package torch \
		--extra all --extra dev --extra docs --output-file requirements.lock pyproject.toml
	rm -rf .venv-lock

audit: $(BIN)/python ## look for known vulnerabilities in the versions that requirements.lock pins
	$(BIN)/python -m venv --clear .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --disable-pip --no-deps --strict -r requirements.lock
	rm -rf .venv-audit

clean: ## remove the virtual environment and what was built
	rm -rf $(VENV) build dist site
