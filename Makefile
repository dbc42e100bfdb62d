# make demo and make test need Python 3.11 or newer and nothing else: they make .venv themselves.

IN ?= samples/rain.mp4
# a name of your own is not replaced if it exists, unless ARGS=--overwrite says so
OUT ?=
ARGS ?= $(if $(OUT),,--overwrite)
VENV ?= .venv
TESTS ?= tests

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# PyPI's PyTorch for Linux brings 2.5 GB of CUDA along; without an NVIDIA GPU the smaller build for
# CPUs is taken where one is to be had: from the package indexes set up here, else from PyTorch's
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: help demo test fuzz dev check types first-cases fix docs build release clean gpu
.DEFAULT_GOAL := help

help:   ## list the targets
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/:[^#]*## /\t/'

# the shell takes the names apart, because make cannot where they hold spaces
demo: export IN := $(IN)
demo: export OUT := $(OUT)
demo: $(VENV)/installed ## restore the sample clip, or your own: make demo IN=my.mp4 OUT=dry.mp4
	@name=$${IN##*/}; out=$${OUT:-demo/$${name%.*}-dry.$${name##*.}}; \
	mkdir -p "$$(dirname "$$out")" && \
	$(BIN)/mhnet-video "$$IN" "$$out" --sheet "$${out%.*}-before-after.png" $(ARGS)

# Bytecode is kept, whatever the shell says: two hundred processes would compile the package, each
# for itself. Status 5 is that of a part without a test.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/installed-dev ## run all the tests, two side by side where none needs the machine alone
	@failed=; \
	$(BIN)/python -m pytest -n 2 -m 'not alone' $(TESTS) || [ $$? = 5 ] || failed=1; \
	$(BIN)/python -m pytest -m alone $(TESTS) || [ $$? = 5 ] || failed=1; \
	[ -z "$$failed" ]

FUZZ_COUNT ?= 3000
FUZZ_KEEP ?= runs/fuzz
fuzz: $(VENV)/installed-dev ## damaged files by the thousand; those that end badly go to runs/fuzz
	$(BIN)/python tests/fuzz.py $(FUZZ_COUNT) --keep $(FUZZ_KEEP)

dev: $(VENV)/installed-dev ## set up .venv with the tools for development

# types beside the tests: mypy takes one core alone for as long as half of the tests take two
check: $(VENV)/installed-dev ## format, lint, types and one case of each fast test; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory -j 2 types first-cases

types: $(VENV)/installed-dev
	$(BIN)/mypy

first-cases: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not alone' --first-cases $(TESTS)

fix: $(VENV)/installed-dev ## format, and apply the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the machine's own Python and PyTorch, nothing installed and nothing fetched; GPU_ARGS=--dry shows on
# a machine without a GPU that all of it runs
GPU_PYTHON ?= python3
GPU_FOLDER ?= gpu
GPU_ARGS ?=
gpu: ## run the GPU tests, none skipped, and the GPU benchmark; the results go to gpu/
	PYTHONPATH=. $(GPU_PYTHON) -m mhnet_video.pipelines.gpu_check $(GPU_FOLDER) $(GPU_ARGS)

docs: $(VENV)/installed-docs ## the documentation as a site, in build/site
	$(BIN)/mkdocs build --strict

build: $(VENV)/installed-dev ## sdist and wheel in dist/
	$(BIN)/python -m build --no-isolation

release: $(VENV)/installed-release ## test all, build, check, try the wheel alone; the files are in dist/
	$(MAKE) test
	BIN=$(BIN) TORCH="$(TORCH)" TORCH_INDEX=$(TORCH_INDEX) .ci/release

clean:  ## remove .venv and what was built
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@python=; for each in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
			python=$$each; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed; name yours with: make PYTHON=/path/to/python3"; exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2> /dev/null; then \
		echo "$$python lacks the venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/installed: constraints.txt pyproject.toml | $(BIN)/python
	@begin=$$(date +%s); \
	echo "installing the package and PyTorch, some 500 MB the first time"; \
	$(PIP) install -c constraints.txt setuptools || exit 1; \
	if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L > /dev/null 2>&1; then \
		$(PIP) install --no-deps "$(TORCH)+cpu" 2> /dev/null || \
		$(PIP) --retries 0 install --no-deps --index-url $(TORCH_INDEX) "$(TORCH)+cpu" \
			2> /dev/null || \
		echo "no PyTorch for CPUs only is to be had here: taking PyPI's, 2.5 GB"; \
	fi; \
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[cpu,web,gpx]' || exit 1; \
	touch $@; echo "set up in $$(($$(date +%s) - begin)) s"

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[cpu,web,gpx,batch,dev]' && touch $@

$(VENV)/installed-release: $(VENV)/installed-dev
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[cpu,release]' && touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[cpu,docs]' && touch $@
