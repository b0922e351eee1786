# Two commands on a fresh clone: `make quickstart` and `make test`. Both set up .venv first; nothing else is needed.

PYTHON ?= python3
OUT ?= runs/quickstart
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test lint format venv clean

quickstart: $(INSTALLED)  ## build -> pretrain -> evaluate -> report; DATA=folder for your own images, OUT=folder for the results
	$(BIN)/rsvl run quickstart --out $(OUT) $(if $(DATA),--data $(DATA))

test: lint  ## what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

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
