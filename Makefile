# Every target does its own set-up: a virtual environment in .venv with this
# package (editable) and TensorFlow for CPUs, or in .venv-jax with JAX. It is
# brought up to date only when setup.cfg or pyproject.toml changes. All that has
# to be there is make and a Python that TensorFlow supports; name it with
# PYTHON=... if it is not found.

VENV ?= .venv
PYTHON ?=
DATA_DIR ?=
PYTEST_ARGS ?=
# Processes that share the tests; each grows to 8 GB.
JOBS ?= 2
# A file goes to a process as a whole, in the order of tests/conftest.py.
SHARED := -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Tests of optional parts skip where their package is missing. All of them run
# with cpu,test,bench,hub,datasets,cv,tensorboard.
TEST_EXTRAS ?= cpu,test
# Without TensorFlow, in a virtual environment of its own.
JAX_VENV := $(VENV)-jax
JAX_TESTS ?= tests/backends tests/callbacks tests/cli tests/conformance \
  tests/convert tests/data tests/presets tests/utils \
  tests/metrics/test_frechet_distance.py \
  tests/trainers/test_gate.py tests/trainers/test_kept_state.py \
  tests/trainers/test_weight_average.py tests/test_demo.py \
  tests/test_without_tensorflow.py
# The long ones of them, and these.
JAX_SOAK_TESTS ?= tests/soak/test_kills.py \
  tests/soak/test_kills_of_vqgan.py tests/soak/test_non_finite.py

COMMA := ,
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MANIFEST := setup.cfg pyproject.toml

ifneq ($(DATA_DIR),)
export KERAS_VQ_DATA := $(DATA_DIR)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-jax jax-tests soak soak-jax parity lint docs bench \
  clean

help:
	@echo "make demo    load the bundled model, reconstruct and fine-tune"
	@echo "make test    ruff and the test suite (PYTEST_ARGS='-k quantizer')"
	@echo "make test-jax  what trains on JAX, without TensorFlow, in .venv-jax"
	@echo "make soak    the long tests: kills, workers, injected NaNs"
	@echo "make soak-jax  those that run on JAX"
	@echo "make parity  the networks of others with the same weights"
	@echo "make lint    ruff check and ruff format --check"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   speed and memory, beside PyTorch"
	@echo "make clean   remove .venv, .venv-jax and everything that was built"
	@echo
	@echo "PYTHON=python3.12   the interpreter that .venv is made with"
	@echo "DATA_DIR=folder     real data; tests that need it skip without it"

# The script is run by its path, so that it can quieten TensorFlow before
# anything imports it.
demo: $(VENV)/.installed-cpu
	@$(BIN)/python applications/vqvae_cifar/demo.py --output demo.png

test: $(VENV)/.installed-$(subst $(COMMA),-,$(TEST_EXTRAS))
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest $(SHARED) $(PYTEST_ARGS)

test-jax:
	@$(MAKE) --no-print-directory VENV=$(JAX_VENV) jax-tests

jax-tests: $(VENV)/.installed-jax-test
	@KERAS_BACKEND=jax $(BIN)/python -m pytest $(SHARED) $(JAX_TESTS) \
	  $(if $(SOAK),-m soak $(JAX_SOAK_TESTS)) $(PYTEST_ARGS)

soak-jax:
	@$(MAKE) --no-print-directory VENV=$(JAX_VENV) SOAK=1 jax-tests

soak: $(VENV)/.installed-$(subst $(COMMA),-,$(TEST_EXTRAS))
	@$(BIN)/python -m pytest -m soak $(SHARED) $(PYTEST_ARGS)

# lpips asks for torchvision, of which it needs only the trunk; the test has it.
parity: $(VENV)/.installed-cpu-test-bench
	@$(PIP) install --quiet --no-deps "lpips==0.1.4"
	@$(BIN)/python -m pytest tests/parity -s $(PYTEST_ARGS)

lint: $(VENV)/.installed-cpu-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# Not --quiet: it also keeps --strict from seeing warnings.
docs: $(VENV)/.installed-cpu-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && \
	  echo "The documentation is in site/index.html."

bench: $(VENV)/.installed-cpu-test-bench
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(JAX_VENV) build dist site demo.png keras_vq.egg-info
	rm -rf .pytest_cache .ruff_cache

# One mark for each set of extras, such as .installed-cpu-test.
$(VENV)/.installed-%: $(BIN)/python $(MANIFEST)
	@echo "Installing keras_vq[$(subst -,$(COMMA),$*)] into $(VENV)" \
	  "(some minutes the first time) ..."
	@$(PIP) install --quiet --editable ".[$(subst -,$(COMMA),$*)]"
	@touch $@

# TensorFlow has wheels for CPython 3.11, 3.12 and 3.13. Each candidate is run,
# because a name on the PATH may be a version manager's empty promise.
$(BIN)/python:
	@chosen=; \
	for candidate in $(if $(PYTHON),$(PYTHON),\
	    python3 python3.13 python3.12 python3.11 python); do \
	  if $$candidate -c 'import sys; \
	      sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	      2>/dev/null; \
	  then chosen=$$candidate; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "keras_vq needs Python 3.11, 3.12 or 3.13." >&2; \
	  echo "Tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 \
	python)" >&2; \
	  echo "Name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$chosen --version) ..."; \
	$$chosen -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$$chosen cannot make virtual environments; on Debian and Ubuntu:" \
	    "apt install python3-venv" >&2; \
	  exit 1; \
	}
