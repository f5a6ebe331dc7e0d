# Trunkline: two commands are enough, `make run` and `make test`.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Other people's agents, which call the embedded server in tests and want other versions than we.
CLIENTS := build/clients
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0
# Not here: espeak-ng, the embedded server's voice of last resort; nothing needs it.
TEST_PACKAGES := sip-tester chromium chromium-driver

.PHONY: install install-dev run test lint bench lock clean help

help:
	@echo 'make run      install what is needed, then answer the telephone'
	@echo 'make test     install what the tests need, then run every check and test'
	@echo 'make bench    measure on this machine; tables here, JSON under build/bench/'
	@echo 'make install  only make $(VENV)'
	@echo 'make lock     resolve the dependencies anew (needs uv)'

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo 'Python 3.11 or 3.12 is needed, and none was found; on Debian 12 or Ubuntu 24.04: apt-get install python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'installing python3-venv ...'; \
		$(APT) update && $(APT) install -y --no-install-recommends python3-venv; }
	@echo 'making $(VENV) with $(PYTHON); this takes about a minute ...'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-index --no-deps --no-build-isolation -e .
	@touch $@

install-dev: $(VENV)/.installed-dev $(CLIENTS)/.installed

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@command -v sipp >/dev/null && command -v chromedriver >/dev/null || { echo 'installing $(TEST_PACKAGES) ...'; \
		$(APT) update && $(APT) install -y --no-install-recommends $(TEST_PACKAGES); }
	@command -v npm >/dev/null || { echo 'installing npm ...'; $(APT) install -y --no-install-recommends nodejs npm; }
	@echo 'adding what the tests need to $(VENV) ...'
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(CLIENTS)/.installed: $(VENV)/.installed tests/clients/foreign/requirements.lock
	@echo 'making $(CLIENTS) ...'
	@[ -x $(CLIENTS)/bin/python ] || $(BIN)/python -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
		-r tests/clients/foreign/requirements.lock
	@touch $@

run: install
	@$(BIN)/trunkline db upgrade
	@exec $(BIN)/trunkline serve

lint: install-dev
	$(BIN)/ruff format --check agent sip tests migrations
	$(BIN)/ruff check agent sip tests migrations
	$(BIN)/lint-imports
	$(BIN)/mypy

# Three at a time: most of a test is waiting for speech. A file's tests share what it sets up;
# in their own order, or the longest, which have few tests, would all come last.
test: lint
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

bench: install-dev
	$(BIN)/python -m tests.bench.loopback
	$(BIN)/python -m tests.bench.embedded
	$(BIN)/python -m tests.bench.barge_in
	$(BIN)/python -m tests.bench.recovery
	$(BIN)/python -m tests.bench.legs

lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
		--custom-compile-command 'make lock' --extra embedded --extra install pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
		--custom-compile-command 'make lock' --extra embedded --extra install --extra dev pyproject.toml -o requirements-dev.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
		--custom-compile-command 'make lock' tests/clients/foreign/requirements.in -o tests/clients/foreign/requirements.lock

clean:
	rm -rf $(VENV) build
