# `make demo` and `make test` work on a machine that has only Python 3.11 to 3.13 with venv.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
PARITY := .venv-parity
S3 := .venv-s3
DATA ?= scenes
# Two busy OpenMP pools on two cores wait for each other: one thread unless told otherwise.
export OMP_NUM_THREADS ?= 1

.PHONY: help env demo test test-clusters chaos lint parity docs bench teachers clean

help:
	@echo "make demo [DATA=emoji]  run the main job on embedded (or fetched emoji) data"
	@echo "make test               run the fast test suite"
	@echo "make test-clusters      run the slow tests, and those on Ray, Slurm and an S3 server of this machine"
	@echo "make chaos              200 kills over reinforce, curate and train jobs; results must be equal"
	@echo "make lint               ruff, layer contract, types"
	@echo "make parity             compare with timm and OpenCLIP in an environment of its own"
	@echo "make bench              run the benchmarks, write benchmarks/results/"
	@echo "make docs               build the documentation into site/"
	@echo "make teachers           train the built-in teachers again"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Understudy needs Python 3.11 to 3.13; $(PYTHON) is {v[0]}.{v[1]}. Set PYTHON=...")'
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[demo,logs,text,curate,solve,ui,mlflow]" --group dev
	@touch $(STAMP)

demo: env
	$(BIN)/understudy demo --data $(DATA)

test: env
	$(BIN)/python -m pytest -n 2

# The S3 server's own dependencies would hold back ours, so it has an environment.
$(S3)/.installed: Makefile
	"$(PYTHON)" -m venv $(S3)
	$(S3)/bin/python -m pip install -q --disable-pip-version-check "moto[s3,server]==5.2.5" boto3==1.44.8 botocore==1.44.8
	@touch $(S3)/.installed

# One Ray head and one Slurm for all of them, so one process.
test-clusters: env $(S3)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[ray]"
	UNDERSTUDY_MOTO_SERVER=$(S3)/bin/moto_server $(BIN)/python -m pytest -m "slow or cluster" --ignore=tests/curate
	# a process that has met a head with a token cannot start a Ray of its own without one
	$(BIN)/python -m pytest -m "slow or cluster" tests/curate

chaos: env
	$(BIN)/python scripts/chaos.py --kills 200 --seed 0

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright src/understudy/core src/understudy/objectives src/understudy/evaluate

$(PARITY)/.installed: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	$(PARITY)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[vision,text,scenes,dense,evals]" torchvision==0.28.0 pytest pytest-timeout hypothesis
	@touch $(PARITY)/.installed

parity: $(PARITY)/.installed
	$(PARITY)/bin/python -m pytest tests/parity

# fold_latency compares with timm, which lives in the environment of the peers.
bench: env $(PARITY)/.installed
	@for b in benchmarks/*.py; do \
		case $$b in */common.py|*_plots.py) continue;; */fold_latency.py) p=$(PARITY)/bin/python;; *) p=$(BIN)/python;; esac; \
		echo "== $$b"; $$p $$b || exit 1; done

teachers: env
	$(BIN)/python scripts/train_teachers.py

docs: env
	$(BIN)/mkdocs build -q

clean:
	rm -rf .venv $(PARITY) $(S3) site demo runs
