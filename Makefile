# `make help` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
TESTS ?=
# More than cores: the tests wait for processes that they start.
TEST_PROCESSES ?= 4
BIN := .venv/bin

# An environment whose Python was removed by an upgrade is incomplete.
$(shell [ -x .venv/bin/python ] || rm -f .venv/*.stamp)

# pip, not the faster uv, because uv ignores pip's configuration: mirror, proxy, certificates.
# --no-deps: the lock is complete. --no-compile: Python compiles what it imports, unless
# PYTHONDONTWRITEBYTECODE forbids it; the installation takes 11 s instead of 18.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_LOCKED := $(PIP) install -qq --require-hashes --no-deps --no-compile -r
PIP_PROJECT := $(PIP) install -qq --no-deps --no-build-isolation --editable .

LOCKS := requirements.lock requirements-dev.lock requirements-clients.lock

# One file for all platforms and Pythons, without the address of a package index.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	$(if $(UPGRADE),--upgrade)

.PHONY: help install run test lint check audit sbom wheel fmt lock migrate revision openapi \
	openapi-diff screenshots up down logs test-clients test-compose mail-pictures test-faults soak mutants bench-hunter bench-import bench-mail bench-webhooks \
	bench bench-report browser curl nginx pgbackrest pgbouncer wrk clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: .venv/dev.stamp ## Create .venv with the development dependencies
run: .venv/run.stamp ## Run the API on HOST and PORT with WORKERS processes and REFERRAL_* settings
	@$(BIN)/referral run --host $(HOST) --port $(PORT) --workers $(WORKERS)

up: .env ## Start the service, nginx, PostgreSQL, Redis and a mail catcher in containers
	$(COMPOSE) up -d --build
	@sed -n 's|^REFERRAL_PUBLIC_URL=\(.*\)|API and docs: \1/docs|p; s|^MAIL_PORT=|mails: http://127.0.0.1:|p' .env

down: ## Stop the containers and keep their data
	$(COMPOSE) down

logs: ## Follow the logs of the containers
	$(COMPOSE) logs -f --tail 100

# Created once, readable by its owner only, never overwritten.
.env: | .env.example
	@umask 077 && password=$$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n') \
		&& sed "s/^POSTGRES_PASSWORD=$$/POSTGRES_PASSWORD=$$password/" .env.example > $@
	@echo "Created .env with a random password"

# A part of the tests runs with the tools that are installed.
test: .venv/dev.stamp $(if $(TESTS),,browser curl nginx pgbouncer) ## Run all tests, or TESTS=path
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/dev.stamp ## Check style, types, layers, locks and migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PIP) check
	! grep -n '://' $(LOCKS)
	$(call with_database,$(BIN)/alembic upgrade head && $(BIN)/alembic check)

check: lint audit test ## Run lint, audit and test

# One short attempt to reach the advisories; without a network the audit says so and passes.
audit: .venv/dev.stamp ## Check the locked packages for known vulnerabilities
	@$(BIN)/python -m tests.tools.dependency_audit $(LOCKS)

sbom: .venv/dev.stamp ## Write the SBOM dist/referral.cdx.json (CycloneDX)
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON -o dist/referral.cdx.json requirements.lock

wheel: .venv/dev.stamp ## Build dist/*.whl twice and compare the two
	@rm -rf dist/*.whl dist/again
	@for folder in dist dist/again; do SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(PIP) wheel -qq --no-deps --no-build-isolation --wheel-dir $$folder . || exit 1; done
	cmp dist/*.whl dist/again/*.whl && rm -r dist/again && sha256sum dist/*.whl

fmt: .venv/dev.stamp ## Format the code and apply ruff's fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: .venv/dev.stamp ## Update the lock files from pyproject.toml; UPGRADE=1 takes newer releases
	$(COMPILE) --group build pyproject.toml -o requirements.lock
	$(COMPILE) --group build --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) --group clients -c requirements-dev.lock -o requirements-clients.lock
	! grep -n '://' $(LOCKS)

migrate: .venv/run.stamp ## Migrate the database to the current schema
	$(BIN)/referral migrate

revision: .venv/dev.stamp ## Draft a migration from the tables: m="add a column"
	$(if $(m),,$(error Describe the migration: make revision m="add a column"))
	$(call with_database,$(BIN)/alembic upgrade head && $(BIN)/alembic revision --autogenerate \
		--rev-id "$$(printf %04d $$(($$(ls migrations/versions/*.py | wc -l) + 1)))" -m "$(m)")

openapi: .venv/dev.stamp ## Write docs/openapi.json
	$(BIN)/python -m tests.tools.openapi_document

openapi-diff: .venv/dev.stamp ## Find breaking changes of the API since the last release, or BASE=revision
	@$(BIN)/python -m tests.tools.openapi_diff $(BASE)

screenshots: .venv/dev.stamp browser ## Take the README's pictures of the docs pages
	$(BIN)/python -m tests.tools.docs_screenshots

mail-pictures: .venv/dev.stamp browser ## Render the pictures of docs/mails.md
	$(BIN)/python -m tests.tools.mail_screenshots

test-clients: .venv/dev.stamp ## Lint the API document; test generated clients and OAuth libraries, or CLIENTS="redocly oauth"
	@$(BIN)/python -m tests.clients $(CLIENTS)

test-compose: .venv/dev.stamp ## Test the containers end to end, with restarts under load
	$(BIN)/python -m tests.compose

test-faults: .venv/dev.stamp pgbackrest ## Run the fault scenarios (20 minutes), or FAULTS="redis smtp"
	@{ command -v patroni && command -v etcd && ls /usr/lib/postgresql; } >/dev/null 2>&1 \
		|| $(call apt_install,patroni etcd-server postgresql) \
		|| echo "Patroni and etcd are not installed: the scenario patroni is left out."
	$(BIN)/python -m tests.faults $(FAULTS)

mutants: .venv/dev.stamp ## Run tests/core against mutants of the core; 10 minutes, fails below 95 % killed
	@rm -rf mutants && $(BIN)/mutmut run --max-children 2 >mutants.log || { tail mutants.log; exit 1; }
	@$(BIN)/mutmut results && $(BIN)/mutmut export-cicd-stats
	$(BIN)/python -m tests.tools.mutation_score

soak: .venv/dev.stamp ## Run under steady load for MINUTES (10) and watch memory and file descriptors
	$(BIN)/python -m tests.faults.soak $(MINUTES)

bench-mail: .venv/dev.stamp ## Measure mail: latency, throughput, a silent SMTP server
	$(BIN)/python -m tests.performance.mail

bench-webhooks: .venv/dev.stamp ## Measure webhooks: throughput, memory, latency beside silent receivers
	$(BIN)/python -m tests.performance.webhooks

bench-hunter: .venv/dev.stamp ## Measure registrations during an EmailHunter outage
	$(BIN)/python -m tests.performance.hunter

bench-import: .venv/dev.stamp ## Measure an import of a million users, codes and referrals, or SCALE=100000
	$(BIN)/python -m tests.performance.imports $(if $(SCALE),--scale $(SCALE))

bench: .venv/dev.stamp wrk ## Measure beside the limits of the machine; SCALE=10000000 users in the last table
	$(BIN)/python -m tests.performance $(if $(SCALE),--scale $(SCALE))

bench-report: .venv/dev.stamp wrk ## Measure and write docs/performance.md
	$(BIN)/python -m tests.performance --report docs/performance.md $(if $(SCALE),--scale $(SCALE))

browser: .venv/dev.stamp ## Install Chromium for the browser tests if there is none
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| command -v google-chrome >/dev/null \
		|| $(call apt_install,chromium) || $(BIN)/playwright install chromium

curl nginx pgbackrest pgbouncer wrk:
	@PATH="$$PATH:/usr/sbin:/sbin" command -v $@ >/dev/null || $(call apt_install,$@) \
		|| { echo "Install $@ and try again." >&2; exit 1; }

clean: ## Remove everything the targets created, except the data in var/
	rm -rf .venv .clients dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The development dependencies include those of the service.
.venv/dev.stamp: pyproject.toml requirements-dev.lock | .venv/bin/python
	@echo "Installing the development dependencies into .venv"
	@$(PIP_LOCKED) requirements-dev.lock
	@$(PIP_PROJECT)
	@touch .venv/run.stamp $@

.venv/run.stamp: pyproject.toml requirements.lock | .venv/bin/python
	@echo "Installing the dependencies into .venv"
	@$(PIP_LOCKED) requirements.lock
	@$(PIP_PROJECT)
	@touch $@

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		exec $$python -m venv --clear .venv; \
	done; echo "Install Python 3.11 or later and try again." >&2; exit 1

# Run a command on a temporary embedded database.
with_database = data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export REFERRAL_DATA_DIR="$$data" \
	&& unset REFERRAL_DATABASE_URL REFERRAL_SIGNING_KEY_FILE && $1

COMPOSE = $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose)

# Works for root on Debian and its derivatives.
apt_install = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $1 >/dev/null; }
