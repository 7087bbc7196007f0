# `make repro` and `make test` need only git, make and Python 3.11 to 3.13: the rest is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
IMAGE ?= upkeep:latest
# Recipes read both from the environment, so that neither make nor a shell executes what a name contains.
override PYTHON := $(value PYTHON)
override IMAGE := $(value IMAGE)
export PYTHON IMAGE
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE # compiled modules make each stage start in a third of the time

.DEFAULT_GOAL := help
.PHONY: help repro check serve test system lint image push sbom bench bench-large ui lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 14

repro: .venv ## Run the pipeline: data, models, reports
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true # an archive without .git
	dvc repro

check: .venv ## Check acceptance cases and quality floors
	upkeep check

serve: .venv ## Serve models and the planner's page on http://127.0.0.1:8000
	UPKEEP_HOST=127.0.0.1 UPKEEP_LOG_URL=data/prediction_log upkeep serve

test: .venv ## Run the unit and integration tests
	pytest tests/unit tests/integration -n 2 --dist loadfile --no-loadscope-reorder # so that a module's fixtures run once

system: .venv ## Run the tests that need containers or servers
	pytest tests/system -n 2 --dist loadfile --no-loadscope-reorder # in groups, see tests/system/conftest.py

lint: .venv ## Run every hook of .pre-commit-config.yaml over all files
	pre-commit run --all-files

image: ## Build the service's image from code and models here; IMAGE= names it
	deploy/build.sh "$$IMAGE"

push: ## Push the image; image.env gets its digest
	deploy/push.sh "$$IMAGE"

sbom: .venv ## List the image's parts in sbom.json (CycloneDX)
	syft --quiet --output cyclonedx-json=sbom.json -- "$$IMAGE"

bench: .venv ## Run the benchmarks: a quarter of an hour
	python -m bench

bench-large: .venv ## Run the large benchmarks (fleets, cluster, endurance, chance): hours, tens of GB of disk
	python -m bench --large

ui: .venv ## Browse runs in MLflow on http://127.0.0.1:5001
	@test ! -e mlflow.db || python -c 'from upkeep.reporting.tracking import follow_checkout; follow_checkout()' # if moved
	mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5001

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-header --custom-compile-command "make lock" pyproject.toml
# The image omits Rich and its dependencies, which Typer uses only for colours, and h11, which Uvicorn uses only without
# httptools.
IMAGE_COMPILE := $(COMPILE) --constraint requirements.lock --extra serving \
  $(addprefix --no-emit-package ,rich markdown-it-py mdurl pygments h11)

lock: .venv ## Resolve pyproject.toml into requirements.lock and the two locks of the image
	$(COMPILE) --all-extras -o requirements.lock
	$(IMAGE_COMPILE) -o requirements-serving.lock
	$(IMAGE_COMPILE) --extra s3 -o requirements-serving-s3.lock

clean: ## Remove the environment and all outputs that DVC can restore
	rm -rf .venv .upkeep/bench .upkeep/pieces .upkeep/score/*/ data/raw data/interim data/processed data/predictions models/plants models/golden .pytest_cache .mypy_cache .ruff_cache

# Makes .venv older than the lock, so that the next call continues an installation that failed.
UNFINISHED := { touch --date=@0 .venv; exit 1; }

# Updated when the lock changes. Index, certificates and proxies are those of the machine.
.venv: requirements.lock pyproject.toml
	"$$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; set PYTHON=")'
	test -x $(BIN)/python || "$$PYTHON" -m venv .venv
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv || $(UNFINISHED)
	uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock || $(UNFINISHED)
	uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . || $(UNFINISHED)
	touch .venv
