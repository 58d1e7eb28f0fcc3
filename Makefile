# The one place for commands. Each target makes its own .venv and needs only Python 3.11+, make and the registry.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help kernels demo install test test-clients test-js test-page test-models test-api faults upgrade lint format bench bench-short plans lock sbom clean

help:
	@echo "make demo         samples in demo-out/, and three pipelines over a film of"
	@echo "                  them; FILM=FILE: shots of yours too"
	@echo "make install      the command rigflow for this user; EXTRAS='[gateway,search]'"
	@echo "                  adds these"
	@echo "make test         the tests; test-models, test-clients, test-js, test-page,"
	@echo "                  test-api, faults, upgrade: more of them"
	@echo "make lint format  what the code must look like"
	@echo "make bench        measures this machine side by side with other programs;"
	@echo "                  bench-short: the least of it"
	@echo "make plans        what \`rigflow plan\` and \`simulate\` predict beside real"
	@echo "                  workers that take their time; 12 minutes"
	@echo "make lock sbom    requirements.lock: versions and hashes; sbom.json: a bill of"
	@echo "                  materials of it"
	@echo "make kernels      compiles the kernels for GPUs, where the CUDA toolkit is"
	@echo "make clean        removes .venv and demo-out"

# with FILM=street.mp4 also `scenes` over that film, and `detect-video` where you keep a model for it
demo: .venv/base
	$(BIN)/python -m cli.demo $${FILM:+"$$FILM"}

# the command `rigflow` for this user; EXTRAS=[gateway,search] adds these
install: HOME_VENV := $(HOME)/.local/share/rigflow-venv
install:
	rm -rf build
	$(PYTHON) -m venv "$(HOME_VENV)"
	"$(HOME_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check ".$(EXTRAS)"
	mkdir -p "$(HOME)/.local/bin"
	ln -sf "$(HOME_VENV)/bin/rigflow" "$(HOME)/.local/bin/rigflow"
	@echo "$(HOME)/.local/bin/rigflow is there; that folder is to be on your PATH"

# four processes on two cores: some tests wait. Commands that tests start share one compilation of our modules.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/test
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not gpu and not slow"

# against real models, in the folder that TEST_WEIGHTS names; tests/weights.py lists them with their hashes
test-models: .venv/test-models
	@test -n "$$TEST_WEIGHTS" || echo "TEST_WEIGHTS names no folder of real models: their tests are skipped"
	$(BIN)/python -m pytest -m models -rs

# the gateway by the clients that people have; `make test` does the same by plain HTTP
test-clients: .venv/test-clients
	$(BIN)/python -m pytest tests/integration/test_gateway_kserve.py tests/integration/test_openai.py tests/integration/test_embeddings.py tests/unit/test_openai_fields.py

# the JavaScript of docs/clients.md, by node and the packages of @nats-io; `make test` checks its syntax where node is
test-js: .venv/test .venv/test-js
	$(BIN)/python -m pytest tests/integration/test_clients_doc.py tests/integration/test_chat_doc.py

# a person's way through the page of the gateway, in Debian's chromium; PAGE_SHOTS names a folder for pictures
test-page: .venv/test-page
	$(BIN)/python -m pytest -m page tests/page

# the long fault runs; `make test` has a short version of each
faults: .venv/test
	$(BIN)/python -m pytest -m slow --timeout 1800 -s

# workers of another version are replaced one by one while a fleet works; FROM=REVISION names it
upgrade: export TEST_UPGRADE_FROM = $(FROM)
upgrade: .venv/test
	$(BIN)/python -m pytest -m slow --timeout 1800 -s tests/faults/test_upgrade.py

# requests by the gateway's own description, made by schemathesis: 0 failures
test-api: export TEST_EXAMPLES ?= 50
test-api: .venv/test-api
	$(BIN)/python -m pytest -m slow --timeout 1800 -s tests/faults/test_gateway_schema.py

lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the kernels for every architecture the CUDA toolkit here knows, and what is written in C by the C compiler; without them
# the first worker compiles its own
kernels: .venv/base
	$(BIN)/python -m engines.cuda.kernels
	$(BIN)/python -m engines.native

# side by side with what else one could use, in under 20 minutes on 2 cores; the records and docs/benchmarks.md are kept
bench: .venv/bench
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

# the least of everything, in CI too: does all of `make bench` still run, and do all contestants answer alike?
bench-short: .venv/bench
	$(BIN)/python -m benchmarks --short
	$(BIN)/python -m benchmarks.detect --short
	$(BIN)/python -m benchmarks.tag --short

# four pipelines on three imagined fleets: predicted by plan, by simulate, and measured
plans: .venv/test
	$(BIN)/python -m benchmarks.plans --seconds 24

# the versions and hashes of all that an installation with these extras has, for every system; checked in. `fewest`: one
# version for every Python, so that machines with another Python compute the same
LOCKED := --extra gateway --extra search --extra cluster --extra otel
lock: .venv/lock
	$(BIN)/uv pip compile pyproject.toml $(LOCKED) --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

# what is in requirements.lock, as CycloneDX: sbom.json
sbom: .venv/base
	$(BIN)/python deploy/sbom.py > sbom.json

clean:
	rm -rf .venv demo-out build *.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rigflow needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/base: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

.venv/test-clients: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,test-clients]'
	@touch $@

.venv/test-js: tests/js/package.json | .venv/bin/python
	@command -v npm > /dev/null || { echo "make test-js needs node 18 or newer with npm"; exit 1; }
	mkdir -p .venv/js
	cp tests/js/package.json .venv/js/
	npm install --prefix .venv/js --no-audit --no-fund --no-package-lock --loglevel error
	@touch $@

.venv/test-models: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,test-models]'
	# its file of weights alone: its dependencies are half a gigabyte, and nothing imports it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps resemblyzer==0.1.4
	@touch $@

.venv/test-page: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,test-page]'
	@touch $@

.venv/test-api: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,test-api]'
	@touch $@

.venv/lock: | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@touch $@

.venv/bench: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@touch $@

# what the tests need is there, too
.venv/lint: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch .venv/test $@
