# Two commands: `make race` finds out whether Muon beats AdamW here; `make test` runs the tests.
# Both need Python >= 3.11, pip and make, and set up a .venv of their own, which is reused while it is current.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.current
# the tests start a hundred processes: without bytecode each compiles the package again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: faults formulas models ranks race test slow quick profile golden check docs docs-pictures clean

race: $(STAMP)
	$(BIN)/thalweg race bytes-gpt --budget quick

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not cluster and not slow"

# what takes long and is about one thing: workers and races that are killed, servers, clusters, compilers, thousands of simulated races
slow: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow and not cluster"

# a race on a cluster whose workers, coordinator, node and database are killed at random moments: two minutes, on a
# busy machine more; nothing (5) where Ray or PostgreSQL is not installed
cluster: $(STAMP)
	$(BIN)/python -m pytest -q -n 0 -rs -m cluster tests/lab/cluster || [ $$? -eq 5 ]

# every optimizer on many layouts of shards, over 2, 3 and 4 processes: the bits of one process
ranks: $(STAMP)
	$(BIN)/python -m pytest -q -n 0 -m ranks tests/shards

# every fault and 50 healthy runs, what check finds in them beside what others would say; docs/data/faults.json has it
faults: $(STAMP)
	$(BIN)/python -m pytest -q -n 0 -m faults tests/diagnosis
	$(BIN)/python -m tests.diagnosis.suite --write

# real architectures (transformers, timm, peft; installed here) against a table of what each weight is and holds; some of
# them sharded, and the scripts that train them so with Accelerate
models: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check --no-warn-script-location -e '.[models]' -c constraints.txt
	$(BIN)/python -m pytest -q -n 0 tests/groups/test_zoo.py tests/diagnosis/inflight/test_trainers.py

# the heart of it while one works, in about a minute: the engine's rooms, and three optimizers beside their references
quick: $(STAMP)
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests/ir tests/native tests/runtime tests/optim tests/test_layout.py \
		--ignore tests/runtime/backends/test_triton.py \
		-k "not test_every_optimizer or SGD-equals or AdamW-equals or Muon-equals" --maxfail 3

# where the tests' time goes: the slowest, and the sum for each file and each check of the suite
profile: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not cluster and not slow" --durations 0 --durations-min 0.005 | $(BIN)/python -m tests.profile

# the kernels and formulas that are kept as text, written again; what changed is for the commit to explain
golden: $(STAMP)
	THALWEG_GOLDEN=write $(BIN)/python -m pytest -q tests/runtime/backends tests/explain/test_equations.py -k "golden or is_what_it_was or as_they_are_printed"
	git --no-pager diff --stat -- tests/golden

# the formulas: those that docstrings have from papers, and those printed from the code, run beside the optimizers
formulas: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 tests/explain/test_typed_formulas.py tests/explain/test_equations.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	printf '%s\n' win32 darwin | xargs -P 2 -I{} $(BIN)/mypy --platform {} --no-warn-unreachable --cache-dir .mypy_cache/{}
	$(BIN)/lint-imports
	$(BIN)/python .ci/lines.py

# the documentation, offline: build/docs/site/index.html; a warning or a dead link is an error
docs: $(STAMP)
	$(BIN)/python -m docs.generator

# what is kept in git and made from the code: the pictures of the story, and parts of its pages
docs-pictures: $(STAMP)
	$(BIN)/python -m docs.generator.story
	$(BIN)/python -m docs.generator.made

# torch comes first and alone, so that nothing else can ask for another build of it
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "thalweg needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --no-warn-script-location "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-warn-script-location -e '.[lab,dev,docs]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
