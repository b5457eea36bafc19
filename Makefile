# The commands of this project. Each brings up what it needs: a machine with Python 3.11 and make is enough.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
PIP := $(PY) -m pip --disable-pip-version-check
JOBS ?= 2
SEEDS ?= 10
HOST ?= 127.0.0.1
PORT ?= 8005
ARGS ?=
REDIS ?=
export HOST PORT REDIS

SQLITE := TEST_ENGINE=sqlite $(PYTEST) -n $(JOBS) --dist loadfile
POSTGRESQL := TEST_ENGINE=postgresql $(PYTEST) -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run test test-unit test-integration test-cov check format bench chaos requirements clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## start web, worker and beat on SQLite with demo data (PORT= HOST= DATABASE_URL= REDIS_URL=)
	@exec $(PY) manage.py up

test: $(VENV)/.installed ## all tests, on SQLite and on PostgreSQL with Redis (ARGS="-k name", REDIS=bundled)
	$(SQLITE) $(ARGS)
	$(POSTGRESQL) --only-engine $(ARGS)

test-unit: $(VENV)/.installed ## only tests that touch no database
	$(SQLITE) --only-pure $(ARGS)

test-integration: $(VENV)/.installed ## only tests that touch a database, on both engines
	$(SQLITE) --only-engine $(ARGS)
	$(POSTGRESQL) --only-engine $(ARGS)

test-cov: $(VENV)/.installed-dev ## all tests with branch coverage of both legs
	rm -f .coverage .coverage.*
	$(SQLITE) --cov --cov-report= $(ARGS)
	$(POSTGRESQL) --only-engine --cov --cov-append --cov-report=term $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, import contracts, missing migrations
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run

format: $(VENV)/.installed-dev ## rewrite the code as `make check` wants it
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/.installed ## measure; prints each figure and writes benchmarks/latest.json
	$(PY) -m benchmarks $(ARGS)

chaos: $(VENV)/.installed ## the kill tests with SEEDS= seeds on each engine, JOBS= at a time
	TEST_ENGINE=sqlite $(PYTEST) -n $(JOBS) -m kill --seeds $(SEEDS) $(ARGS)
	TEST_ENGINE=postgresql $(PYTEST) -n $(JOBS) -m kill --seeds $(SEEDS) $(ARGS)

requirements: $(VENV)/.installed ## compile requirements*.in to pinned files with hashes
	$(PY) -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip --quiet --disable-pip-version-check install uv
	$(VENV)/uv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --quiet requirements.in -o requirements.txt
	$(VENV)/uv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --quiet requirements-dev.in -o requirements-dev.txt

clean: ## remove the environment, caches and the local database under var/
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*

# The files name every package that is needed, so pip has nothing to resolve: left to itself it picks the newest release for
# an extra (`coverage[toml]`) that is pinned without it, and then refuses that for having no hash.
# Debian's python3 without python3-venv makes an environment without pip; the outer pip then installs into it.
$(VENV)/.installed: requirements.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@if $(PY) -m pip --version >/dev/null 2>&1; then $(PIP) install --quiet --no-deps -r requirements.txt; \
	else $(PYTHON) -m pip --quiet --disable-pip-version-check --python $(PY) install --no-deps -r requirements.txt; fi
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@if $(PY) -m pip --version >/dev/null 2>&1; then $(PIP) install --quiet --no-deps -r requirements-dev.txt; \
	else $(PYTHON) -m pip --quiet --disable-pip-version-check --python $(PY) install --no-deps -r requirements-dev.txt; fi
	@touch $@
