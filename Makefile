# make demo and make test each work alone from a clean clone with Python 3.11 or newer.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test test-ray lint bench fit accuracy clean
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; try: make PYTHON=python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/planner search meta-llama/Llama-3.1-70B --fleet h100-sxm:16 --isl 4000 --osl 1000 --ttft 1s --tpot 50ms

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# Sweeps on a local Ray cluster. Apart, because Ray is a large package that few users install.
$(VENV)/installed-ray: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	@touch $@

test-ray: $(VENV)/installed-ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/sweep/test_on_ray.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench_search.py

# All fitted constants, from the measurements: kernels where their benchmarks are at hand, then engines, then the README.
fit: $(VENV)/installed
	@if [ -d ../shared/measured/ops ]; then $(BIN)/python benchmarks/fit_operators.py --write; \
	  else echo "no ../shared/measured/ops: the kernel constants stay as they are"; fi
	$(BIN)/python benchmarks/fit_engines.py --write
	$(MAKE) accuracy

accuracy: $(VENV)/installed
	$(BIN)/python benchmarks/update_readme.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
