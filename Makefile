# What one does with this repository; `make help` lists it.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
TESTS ?=
TEST_PROCESSES ?= 2
BIN := .venv/bin

# A Python that was upgraded away leaves an environment that only looks complete.
$(shell [ -x .venv/bin/python ] || rm -f .venv/*.stamp)

# Plain pip, and not the quicker uv: uv reads no pip configuration, so that whoever has a mirror, a
# proxy or a certificate set there would wait for a server out of reach. --no-deps, as the lock
# names everything; --no-compile, as only what is imported needs compiling (18 s become 11), which
# Python has to be let do.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_LOCKED := $(PIP) install -qq --require-hashes --no-deps --no-compile -r
PIP_PROJECT := $(PIP) install -qq --no-deps --no-build-isolation --editable .

# One file for all platforms and Pythons, and no address of a package index in it.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	$(if $(UPGRADE),--upgrade) --group build

.PHONY: help install run test lint check audit sbom wheel fmt lock migrate revision openapi \
	screenshots up down logs test-compose mail-pictures test-faults soak bench-hunter bench-mail \
	bench bench-report browser curl nginx pgbouncer wrk clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: .venv/dev.stamp ## Make .venv with all that development needs
run: .venv/run.stamp ## Serve on HOST, PORT with WORKERS; REFERRAL_* settings from the environment
	@$(BIN)/referral run --host $(HOST) --port $(PORT) --workers $(WORKERS)

up: .env ## Start the whole service in containers, with nginx, PostgreSQL, Redis and a mail catcher
	$(COMPOSE) up -d --build
	@sed -n 's|^REFERRAL_PUBLIC_URL=\(.*\)|API and docs: \1/docs|p; s|^MAIL_PORT=|mails: http://127.0.0.1:|p' .env

down: ## Stop the containers; their data stays
	$(COMPOSE) down

logs: ## Follow the logs of the containers
	$(COMPOSE) logs -f --tail 100

# Made once, for its owner alone, and never overwritten.
.env: | .env.example
	@umask 077 && password=$$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n') \
		&& sed "s/^POSTGRES_PASSWORD=$$/POSTGRES_PASSWORD=$$password/" .env.example > $@
	@echo "Made .env with a random password"

# A part is run with what there is.
test: .venv/dev.stamp $(if $(TESTS),,browser curl nginx pgbouncer) ## Run all tests, or those in TESTS
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile $(TESTS)

lint: .venv/dev.stamp ## Check style, types, layers, locks and migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PIP) check
	! grep -n '://' requirements.lock requirements-dev.lock
	$(call with_database,$(BIN)/alembic upgrade head && $(BIN)/alembic check)

check: lint audit test ## Run lint, audit and test

# Asks for the advisories once and in a short time: without a network they are left out, with a word.
audit: .venv/dev.stamp ## Look for known holes in what is locked, where the advisories can be reached
	@$(BIN)/python -m tests.support.audit requirements.lock requirements-dev.lock

sbom: .venv/dev.stamp ## Write dist/referral.cdx.json, what an installation holds (CycloneDX)
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON -o dist/referral.cdx.json requirements.lock

wheel: .venv/dev.stamp ## Build dist/*.whl twice, and fail if the two differ
	@rm -rf dist/*.whl dist/again
	@for folder in dist dist/again; do SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(PIP) wheel -qq --no-deps --no-build-isolation --wheel-dir $$folder . || exit 1; done
	cmp dist/*.whl dist/again/*.whl && rm -r dist/again && sha256sum dist/*.whl

fmt: .venv/dev.stamp ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: .venv/dev.stamp ## Bring the locks in step with pyproject.toml; UPGRADE=1 takes newer releases
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	! grep -n '://' requirements.lock requirements-dev.lock

migrate: .venv/run.stamp ## Bring the schema of the database up to date
	$(BIN)/referral migrate

revision: .venv/dev.stamp ## Draft a migration from the tables, m="what it does"
	$(if $(m),,$(error Say what it does: make revision m="add a column"))
	$(call with_database,$(BIN)/alembic upgrade head && $(BIN)/alembic revision --autogenerate \
		--rev-id "$$(printf %04d $$(($$(ls migrations/versions/*.py | wc -l) + 1)))" -m "$(m)")

openapi: .venv/dev.stamp ## Write docs/openapi.json
	$(BIN)/python -m tests.support.refresh_openapi

screenshots: .venv/dev.stamp browser ## Take the pictures in docs/images
	$(BIN)/python -m tests.support.screenshots

mail-pictures: .venv/dev.stamp browser ## Draw the mails for docs/mails.md
	$(BIN)/python -m tests.support.mail_pictures

test-compose: .venv/dev.stamp ## Bring the containers up, travel through them, restart replicas under load
	$(BIN)/python -m tests.compose

test-faults: .venv/dev.stamp ## Kill, stop and cut off every part, in 15 minutes; FAULTS="redis smtp" for some
	$(BIN)/python -m tests.faults $(FAULTS)

soak: .venv/dev.stamp ## Run under steady load for MINUTES, 10 by default, and watch memory and handles
	$(BIN)/python -m tests.faults.soak $(MINUTES)

bench-mail: .venv/dev.stamp ## Measure mail: latency, throughput, and a silent SMTP server
	$(BIN)/python -m tests.performance.mail

bench-hunter: .venv/dev.stamp ## Measure what registrations notice of an EmailHunter that is gone
	$(BIN)/python -m tests.performance.hunter

bench: .venv/dev.stamp wrk ## Measure, each number beside the limit of its machine; SCALE=10000000 users in the last table
	$(BIN)/python -m tests.performance $(if $(SCALE),--scale $(SCALE))

bench-report: .venv/dev.stamp wrk ## Measure, and write docs/performance.md
	$(BIN)/python -m tests.performance --report docs/performance.md $(if $(SCALE),--scale $(SCALE))

browser: .venv/dev.stamp ## Get the Chromium that the tests drive, when there is none
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| command -v google-chrome >/dev/null \
		|| $(call apt_install,chromium) || $(BIN)/playwright install chromium

curl nginx pgbouncer wrk:
	@PATH="$$PATH:/usr/sbin:/sbin" command -v $@ >/dev/null || $(call apt_install,$@) \
		|| { echo "Install $@, and try again." >&2; exit 1; }

clean: ## Remove what the targets made, but not the data in var/
	rm -rf .venv dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installing for development covers running as well.
.venv/dev.stamp: pyproject.toml requirements-dev.lock | .venv/bin/python
	@echo "Installing what development needs into .venv"
	@$(PIP_LOCKED) requirements-dev.lock
	@$(PIP_PROJECT)
	@touch .venv/run.stamp $@

.venv/run.stamp: pyproject.toml requirements.lock | .venv/bin/python
	@echo "Installing what the service needs into .venv"
	@$(PIP_LOCKED) requirements.lock
	@$(PIP_PROJECT)
	@touch $@

.venv/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		exec $$python -m venv --clear .venv; \
	done; echo "Install Python 3.11 or later, and try again." >&2; exit 1

# Run a command on an embedded database that is thrown away.
with_database = data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export REFERRAL_DATA_DIR="$$data" \
	&& unset REFERRAL_DATABASE_URL REFERRAL_SIGNING_KEY_FILE && $1

COMPOSE = $(if $(shell docker compose version 2>/dev/null),docker compose,docker-compose)

# Debian and its kin, as root, as in a container.
apt_install = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $1 >/dev/null; }
