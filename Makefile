# Each target sets itself up: a virtual environment in the checkout, made once and renewed when the locked dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := build/runtime

.DEFAULT_GOAL := help
.PHONY: help demo test check catalogs bench soak soak-model screenshots chart-golden image image-test lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --quiet install --require-hashes --requirement requirements-dev.txt
	$(BIN)/python -m pip --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.ready ## the agent at work between an Exastro and four sources, all on this machine (Ctrl-C ends it)
	@$(BIN)/ita-ag-oase demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(VENV)/.ready ## all tests
	$(BIN)/pytest

check: $(VENV)/.ready ## what must be green before a commit: style, types, structure, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

catalogs: $(VENV)/.ready ## bring the catalogues of messages in line with the source, and name what is not translated yet
	@PYTHONPATH=tests $(BIN)/python -m catalogs

# The programs that are measured have the run-time dependencies alone, as in the image.
$(RUNTIME)/.ready: requirements.txt $(VENV)/.ready
	$(PYTHON) -m venv --clear --without-pip $(RUNTIME)
	$(BIN)/python -m pip --quiet --python $(RUNTIME)/bin/python install --require-hashes --requirement requirements.txt
	@touch $@

bench: $(VENV)/.ready $(RUNTIME)/.ready ## CPU and memory of the agent, beside the bare minimum (SCENARIOS="idle start", JSON=file)
	@PYTHONPATH="$(CURDIR)/tests" $(BIN)/python bench/bench.py --python $(RUNTIME)/bin/python $(if $(JSON),--json $(JSON)) \
		$(if $(RUNS),--runs $(RUNS)) $(SCENARIOS)

soak: $(VENV)/.ready ## the agent for ten minutes under kills, faults and clock jumps (MINUTES=3, or KILLS=1000; SEED=1; JUMPS=no)
	@PYTHONPATH=tests $(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(filter no,$(JUMPS)),--no-jumps)

soak-model: $(VENV)/.ready ## the models of exactly-once delivery and of the election with many thousands of examples
	$(BIN)/pytest -n 2 tests/unit/test_exactly_once.py tests/unit/test_election_model.py --hypothesis-profile=soak

image: ## build the image with docker, podman or buildah, whichever is there (TAG=name:tag)
	@./packaging/build-image $(if $(TAG),$(TAG))

image-test: $(VENV)/.ready ## build the image on a base made from Debian and this Python, and run it (root and Debian needed)
	@IMAGE_TEST=1 $(BIN)/pytest -n 0 -s --timeout=900 tests/image

screenshots: $(VENV)/.ready ## the pictures of the status page in docs/images (needs chromium, fonts-noto-cjk, pngquant)
	@PYTHONPATH=tests $(BIN)/python tests/browser/screenshots.py

chart-golden: $(VENV)/.ready ## renew what is made from the chart: its values, tables of its README and the manual, golden renderings
	@PYTHONPATH=tests $(BIN)/python -m chart_files

lock: $(VENV)/.ready ## renew requirements*.txt within the ranges of pyproject.toml
	$(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --quiet --output-file requirements.txt pyproject.toml
	$(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --quiet --group dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	$(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --quiet --group build --constraint requirements-dev.txt --output-file requirements-build.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
