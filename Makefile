# make demo   the main job on embedded phantom data, trained model included, pictures at the end
# make test   all tests
# Both set everything up in .venv first (Python >= 3.11; on Debian/Ubuntu also the package python3-venv).

PYTHON ?= python3
# pip options for the PyTorch build, e.g. an index URL for CPU-only or CUDA wheels.
TORCH_PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-long test-integrations test-newest test-floors fuzz lint smoke wheel-start pages docs licences sbom hashes clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python >= 3.11 is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python jobs/augment_duke.py --out runs/duke_phantom

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The longer of the documented chains, about 15 minutes.
test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

# The suite with the newest versions that pyproject.toml allows, in .venv-newest; TESTS=FILES for some of it.
TESTS ?=
NEWEST := .venv-newest/bin/python
test-newest:
	$(PYTHON) -m venv .venv-newest
	$(NEWEST) -m pip install --quiet --upgrade pip
	$(NEWEST) -m pip install --quiet --upgrade $(TORCH_PIP_ARGS) torch
	$(NEWEST) -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test]"
	$(NEWEST) -m pip freeze > .venv-newest/versions.txt
	@echo "pinned, and not installed here:"; grep -ivxFf .venv-newest/versions.txt constraints.txt || true
	$(NEWEST) -m pytest $(TESTS)

# The same with the lowest versions that pyproject.toml allows, in .venv-floors; EXCEPT=NAMES are left to pip, such as
# "torch monai" where the lowest PyTorch cannot be had. ruff and mypy judge code by rules of their day, and run elsewhere.
EXCEPT ?=
LOWEST := .venv-floors/bin/python
test-floors: $(VENV)/.installed
	$(PYTHON) -m venv .venv-floors
	$(LOWEST) -m pip install --quiet --upgrade pip
	PYTHONPATH=. $(BIN)/python -m supply.floors ruff mypy $(EXCEPT) > .venv-floors/constraints.txt
	$(LOWEST) -m pip install --quiet --constraint .venv-floors/constraints.txt $(TORCH_PIP_ARGS) torch
	$(LOWEST) -m pip install --quiet --constraint .venv-floors/constraints.txt --editable ".[test]"
	$(LOWEST) -m pytest $(TESTS)

# N cases of hostile input for each reader, with the counts by outcome in runs/fuzz.json.
N ?= 1000
fuzz: $(VENV)/.installed
	mkdir -p runs
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --cases $(N) --out runs/fuzz.json

# What is generated of the documentation: pages of figures, the reference, marked places.
pages: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python -m pages

# The documentation's site in build/site; needs no network once installed.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	PYTHONPATH=. $(BIN)/mkdocs build --strict

# docs/licences.md from what is installed, the site's packages among it.
licences: $(VENV)/.docs
	PYTHONPATH=. $(BIN)/python -m supply.licences

# A bill of materials (CycloneDX).
sbom: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python -m supply.sbom --out runs/sbom.json

# Versions and sha256 of everything that pip takes on this platform, for `pip install --require-hashes -r`.
hashes: $(VENV)/.installed
	mkdir -p runs
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report runs/pip.json \
	  --constraint constraints.txt $(TORCH_PIP_ARGS) ".[test]"
	PYTHONPATH=. $(BIN)/python -m supply.hashes --out runs/requirements.txt < runs/pip.json

# Each trainer that reads exports in an environment of its own, kept in .venv-integrations.
test-integrations: $(VENV)/.installed
	bash tests/integrations/run

# The quick start from the built wheel in an environment of its own; FRESH=1 installs it as users do (minutes).
wheel-start: $(VENV)/.installed
	bash .ci/wheel

# The main job in small, once as a script and once submitted to a running Ray head.
smoke: $(VENV)/.installed
	bash .ci/smoke

clean:
	rm -rf $(VENV) .venv-newest .venv-floors runs build *.egg-info
