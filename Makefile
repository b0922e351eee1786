# Two commands on a fresh clone: `make quickstart` and `make test`. Both set up .venv first; nothing else is needed.

PYTHON ?= python3
OUT ?= runs/quickstart
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test test-serve test-vllm lint format venv clean

quickstart: $(INSTALLED)  ## build -> pretrain -> evaluate -> report; DATA=folder for your own images, OUT=folder for the results
	$(BIN)/rsvl run quickstart --out $(OUT) $(if $(DATA),--data $(DATA))

test: lint  ## what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-serve: $(INSTALLED)  ## captions from a real `transformers serve`
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[serve]'
	$(BIN)/python -m pytest -m serve tests/rsvl_data/captioning_engines

test-vllm:  ## captions from real vLLM on the CPU, as a server and in process; its environment takes 6 GB in .venv-vllm
	PYTHON=$(PYTHON) tests/vllm_env.sh .venv-vllm
	.venv-vllm/bin/python -m pytest -m vllm -p no:cacheprovider --noconftest -W ignore tests/rsvl_data/captioning_engines/test_real_servers.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("rsvl needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache runs
