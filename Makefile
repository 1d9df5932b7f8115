# `make demo` and `make test` set up .venv first, and reuse it until a pin changes.
BIN := .venv/bin
PIP_OPTIONS := --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
WORKERS ?= 2

# Extras that are tested in environments of their own. `make test-NAME` installs '.[NAME]' in .venv-NAME and runs the
# tests with `pytestmark = pytest.mark.NAME`. `make test` skips them, by `pytest.importorskip` with the reason.
EXTRAS := export hub iqa web

# PyTorch's own index has CPU builds without gigabytes of CUDA: make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3.14 python3 python; do \
	$$python -c "$(SUPPORTED)" 2>/dev/null && echo $$python && break; done)

# Stamps: what the commands need is installed, and what the tests need. Their names contain the checksum of the
# requirements, so that a changed pin has no stamp and is installed.
CHECKSUM := $(firstword $(shell cat constraints.txt pyproject.toml | cksum))
BASE := base-$(CHECKSUM)
READY := ready-$(CHECKSUM)

# pip would take most of its time to compile modules that `make demo` never imports. Python compiles those that are
# imported, and must be allowed to write the result.
unexport PYTHONDONTWRITEBYTECODE

# What builds the site and the distributions, in an environment that needs no torch.
TOOLS := build mkdocs-material mkdocstrings-python ruff twine
TOOLS_BIN := .venv-tools/bin

.PHONY: demo test lint bench-check docs dist venv clean $(EXTRAS:%=test-%)

# One thread: several gain little on such small maps, and beside other programs they wait for each other.
demo: .venv/$(BASE)
	OMP_NUM_THREADS=1 $(BIN)/basicsr demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The browser is Debian's: apt-get install chromium.
test-web: FURTHER := playwright
$(EXTRAS:%=test-%): test-%: .venv-%/$(READY)
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -m $* -n $(WORKERS)

lint: .venv/$(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The rows of the paper that need no training: bicubic's quality, if the benchmark images are available, and all costs.
bench-check: .venv/$(BASE)
	$(BIN)/basicsr test -opt options/test_Bicubic_x2.yml --check
	$(BIN)/basicsr test -opt options/test_Bicubic_x4.yml --check
	$(BIN)/basicsr cost -opt options/test_*_x4.yml options/ablation/*.yml --markdown | diff docs/cost.md -

# The pages as a site, build/site/index.html. Any warning is an error, and so is a page that loads something from elsewhere.
docs: .venv-tools/$(READY)
	rm -rf build/docs build/site && mkdir -p build/docs
	cp -R *.md CITATION.cff LICENSE docs benchmarks options bidiffsr_arch build/docs
	NO_MKDOCS_2_WARNING=1 $(TOOLS_BIN)/mkdocs build --quiet --strict
	! grep -rE '<(script|link|img)[^>]+(src|href)="?(https?:)?//' build/site --include='*.html'

# An sdist and a wheel in dist/, as they would be uploaded.
dist: .venv-tools/$(READY)
	rm -rf dist
	$(TOOLS_BIN)/python -m build
	$(TOOLS_BIN)/twine check --strict dist/*

venv: .venv/$(READY)

.venv/$(BASE) $(EXTRAS:%=.venv-%/$(BASE)):
	@"$(PYTHON)" -c "$(SUPPORTED)" 2>/dev/null || { \
	echo "expected Python 3.10 to 3.14 with its venv module, found '$(PYTHON)'; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(@D), a few minutes the first time"
	"$(PYTHON)" -m venv --clear $(@D)
	$(@D)/bin/python -m pip install $(PIP_OPTIONS) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(@D)/bin/python -m bidiffsr_arch.compat.install $(PIP_OPTIONS)
	$(@D)/bin/python -m pip install $(PIP_OPTIONS) --no-build-isolation --editable '.[fast]'
	@touch $@

# Tests start many processes, so here all modules are compiled, on all cores; a few of them are for other Pythons.
comma := ,
.venv/$(READY) $(EXTRAS:%=.venv-%/$(READY)): .venv%/$(READY): .venv%/$(BASE)
	$(@D)/bin/python -m pip install $(PIP_OPTIONS) --no-build-isolation --editable '.[plot,test$(subst -,$(comma),$*)]' $(FURTHER)
	$(@D)/bin/python -m compileall -qq -j 0 $(@D)/lib || true
	@touch $@

.venv-tools/$(READY):
	"$(PYTHON)" -m venv --clear $(@D)
	$(@D)/bin/python -m pip install $(PIP_OPTIONS) $(TOOLS)
	@touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
