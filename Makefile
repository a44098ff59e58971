# Two commands on a fresh machine: make demo, make test. Each does the set-up itself.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python3.12)
VENV := .venv/bin/python
export OMP_WAIT_POLICY := PASSIVE
export PYTHONUNBUFFERED := 1

.PHONY: help install demo run test test-vllm lint check faults bench pins backup restore

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install:  ## virtual environment, dependencies, base model, database
	@test -n "$(PYTHON)" || { echo "install: no python3.11 on the path; install Python 3.11" >&2; exit 2; }
	@"$(PYTHON)" -m rmn.bootstrap

demo: install  ## the whole loop once, on real data and a real model; report in var/demo
	@$(VENV) manage.py demo

run: install  ## site, worker, beat, broker and inference server; one Ctrl-C stops all
	@$(VENV) manage.py serve

test: install  ## tests on SQLite; on other databases where RMN_TEST_DATABASE_URLS is set
	@$(VENV) manage.py run_tests

lint: install  ## style, types, import contracts, migrations, deployment checks, known holes
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/lint-imports
	@.venv/bin/mypy .
	@$(VENV) manage.py makemigrations --check --dry-run
	@env SECRET_KEY=$$($(VENV) -c 'import secrets; print(secrets.token_urlsafe(60))') DEBUG=False ALLOWED_HOSTS=example.com \
	  $(VENV) manage.py check --deploy --fail-level WARNING
	@timeout 120 .venv/bin/pip-audit --skip-editable --progress-spinner off -r requirements/base.txt --disable-pip >var/audit.log 2>&1 \
	  && echo "pip-audit: no known holes" || { grep -q "Found" var/audit.log && cat var/audit.log && exit 1 || echo "pip-audit: its service does not answer here; not checked"; }

check: lint test  ## what CI runs

backup: install  ## save rows, files and adapters: make backup [TO=folder]
	@$(VENV) manage.py backup $(if $(TO),--to "$(TO)")

restore: install  ## into an empty database, or one brand alone: make restore FROM=folder [BRAND=slug]
	@test -n "$(FROM)" || { echo "restore: FROM=folder is missing; name what make backup wrote" >&2; exit 2; }
	@$(VENV) manage.py restore "$(FROM)" $(if $(BRAND),--brand "$(BRAND)")

faults: install  ## kills and broken parts; own servers on free ports
	@$(VENV) -m pytest tests/faults -m faults -rP
	@$(VENV) -m pytest $(WALLS) -q

WALLS := tests/test_routes.py tests/test_api.py tests/test_console.py tests/test_schedules.py tests/test_backup.py tests/test_health.py tests/test_settings.py \
  tests/lib/test_outbound.py tests/lib/test_sealing.py tests/lib/test_runs.py tests/retailers/test_audit.py

bench: install  ## benchmarks, small
	@$(VENV) -m benchmarks

test-vllm: install  ## the clients' contract against a vLLM of yours: RMN_TEST_VLLM_URL, and RMN_TEST_VLLM_ADAPTER=folder of a third adapter
	@test -n "$(RMN_TEST_VLLM_URL)" || { echo "test-vllm: RMN_TEST_VLLM_URL is not set; docs/serving.md says how one is started" >&2; exit 2; }
	@$(VENV) -m pytest tests/agents/test_clients.py -k "real"

pins: install  ## compile requirements/*.in anew
	@for name in base train dev; do .venv/bin/pip-compile -q --strip-extras --no-header --annotation-style=line --allow-unsafe \
	  $$(test $$name = base && echo --generate-hashes) -o requirements/$$name.txt requirements/$$name.in \
	  && sed -i.old '/^--/d' requirements/$$name.txt && rm requirements/$$name.txt.old; done