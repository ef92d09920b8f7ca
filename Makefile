# make demo | make test | make check — `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
# TORCH=cpu takes torch's CPU build (about 200 MB instead of 3 GB); empty takes PyPI's default, which runs on both.
TORCH ?=
RUN := $(VENV)/bin
# Two test files at a time: they mostly wait for programs to start.
PARALLEL ?= -n 2 --dist loadfile
# Programs that cotenant is compared with or tested against, each in a virtual environment of its own.
PEERS ?= guidellm kopf locust litellm runai-model-streamer vllm-router
# For `make images`: docker where its daemon answers, else buildah.
IMAGE_REPOSITORY ?= ghcr.io/cotenant
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGES ?= operator gateway serving
BASE_IMAGE ?=
BUILD_OPTIONS ?=
BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah build)
# Compiled now rather than by the first engine that imports torch: its first wake is 20 s faster and 100 MiB smaller.
INSTALL := $(RUN)/python -m uv pip install --python $(RUN)/python --constraints constraints.txt --compile-bytecode \
	$(if $(TORCH),--torch-backend=$(TORCH))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-chaos test-cluster test-cluster-full check peers bench-accounting bench-agreement \
	bench-cache bench-engines bench-gateway bench-loadtest bench-operator bench-wake fix generate images clean

help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

install: $(VENV)/.local ## Install into .venv; TORCH=cpu for torch's CPU build

demo: $(VENV)/.local ## Install, start, stream an answer; ONCE=1 ends after it, PORT=8080
	$(RUN)/cotenant demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev ## Install and run every test ring that can run here
	env -u KUBECONFIG -u COTENANT_TEST_CLUSTER $(RUN)/python -m pytest -q -ra $(PARALLEL) $(ARGS)

test-chaos: $(VENV)/.dev ## The chaos ring, and at full size the tests of which `make test` runs a tenth (up to 15 minutes)
	$(RUN)/python -m pytest -q -ra $(PARALLEL) --full -m 'chaos or full' $(ARGS)

test-cluster: $(VENV)/.dev ## The ring that needs a cluster with KubeRay: any that KUBECONFIG names (7 minutes on two cores)
	$(RUN)/python -m pytest -q -ra -m cluster tests/cluster $(ARGS)

test-cluster-full: $(VENV)/.dev ## The same at full size (longer)
	$(RUN)/python -m pytest -q -ra --full -m cluster tests/cluster $(ARGS)

check: $(VENV)/.dev ## Lint, format, types, layers, generated files: what CI runs
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m tests.golden.update --check
	$(RUN)/python scripts/chart_values.py --check
	$(RUN)/python scripts/chart_dashboards.py --check
	$(RUN)/python scripts/generate_docs.py --check
	$(RUN)/python scripts/generate_crds.py --check

peers: $(PEERS:%=.peers/%/.installed) ## Install what cotenant is compared with into .peers; PEERS="locust …" for some

bench-accounting: $(VENV)/.dev ## Measure what the gateway pays to count a request
	$(RUN)/python -m benchmarks.accounting $(ARGS)

bench-agreement: $(VENV)/.dev .peers/guidellm/.installed ## Do the load test's figures agree with GuideLLM's? (about 3 minutes)
	$(RUN)/python -m benchmarks.agreement $(ARGS)

bench-cache: $(VENV)/.dev .peers/runai-model-streamer/.installed ## What the weight cache costs: downloads, bookkeeping, loading (ARGS='--gb 0.3 --rounds 3')
	$(RUN)/python -m benchmarks.cache $(ARGS)

bench-engines: $(VENV)/.dev ## Tokens and sentences a second, against the model alone (about 5 minutes)
	$(RUN)/python -m benchmarks.engines $(ARGS)

bench-gateway: $(VENV)/.dev .peers/vllm-router/.installed .peers/litellm/.installed ## CPU per request and per event, against vllm-router, LiteLLM, Ray Serve (ARGS=--quick)
	$(RUN)/python -m benchmarks.gateway $(ARGS)

bench-loadtest: $(VENV)/.dev .peers/guidellm/.installed .peers/locust/.installed ## What the load test costs, against GuideLLM and locust (ARGS=--quick)
	$(RUN)/python -m benchmarks.loadtest $(ARGS)

bench-operator: $(VENV)/.dev .peers/kopf/.installed ## What 1,000 models cost the operator on the cluster of KUBECONFIG, against kopf (ARGS=--rounds=1)
	$(RUN)/python -m benchmarks.operator $(ARGS)

bench-wake: $(VENV)/.dev ## From no engine to the first token, and what an idle `up` costs (about 2 minutes)
	$(RUN)/python -m benchmarks.wake $(ARGS)

images: $(IMAGES:%=image-%) ## Build the images; IMAGE_REPOSITORY, VERSION, BASE_IMAGE, IMAGES="operator gateway", TORCH=cpu

image-%:
	$(BUILDER) $(BUILD_OPTIONS) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
		$(if $(and $(TORCH),$(filter serving,$*)),--build-arg TORCH=$(TORCH)) \
		--tag $(IMAGE_REPOSITORY)/cotenant-$*:$(VERSION) --file images/$*.Dockerfile .

fix: $(VENV)/.dev ## Format, and mend what ruff can mend
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

generate: $(VENV)/.dev ## Rewrite generated files
	$(RUN)/python -m tests.golden.update
	$(RUN)/python scripts/chart_values.py
	$(RUN)/python scripts/chart_dashboards.py
	$(RUN)/python -m tests.golden_chart.update
	$(RUN)/python scripts/generate_docs.py
	$(RUN)/python scripts/generate_crds.py

clean: ## Remove the virtual environments and caches
	rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "cotenant needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Run: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

$(VENV)/.local: $(VENV)/.uv pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (torch and its CUDA libraries are a download of about 3 GB; TORCH=cpu is smaller)"
	$(INSTALL) -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.local

.peers/%/.installed: benchmarks/peers/%.txt $(VENV)/.uv
	$(RUN)/python -m uv venv --quiet --clear --python $(RUN)/python .peers/$*
	$(RUN)/python -m uv pip install --quiet --python .peers/$*/bin/python --requirement $< $(if $(TORCH),--torch-backend=$(TORCH))
	@touch $@
