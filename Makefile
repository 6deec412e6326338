# Two commands: `make race` finds out whether Muon beats AdamW here; `make test` runs the tests.
# Both need Python >= 3.11, pip and make, and set up a .venv of their own, which is reused while it is current.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.current

.PHONY: race test check docs docs-pictures clean

race: $(STAMP)
	$(BIN)/thalweg race bytes-gpt --budget quick

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for system in win32 darwin; do $(BIN)/mypy --platform $$system --no-warn-unreachable --cache-dir .mypy_cache/$$system || exit; done
	$(BIN)/lint-imports

# the documentation, offline: build/docs/site/index.html; a warning or a dead link is an error
docs: $(STAMP)
	$(BIN)/python -m docs.generator

# the pictures of its story, which are kept in git, drawn anew
docs-pictures: $(STAMP)
	$(BIN)/python -m docs.generator.story

# torch comes first and alone, so that nothing else can ask for another build of it
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "thalweg needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --no-warn-script-location "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-warn-script-location -e '.[lab,dev,docs]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
