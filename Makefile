# Each target does all its own set-up; `make` alone lists them.
BIN := .venv/bin
STAMP := .venv/.set-up
DEMO := $(CURDIR)/demo-out
JOBS ?= 2
ARGS ?=
MINUTES ?= 10
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --quiet $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help demo docs pictures test coverage integration wheel release soak setup lint format lock clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A server that the user works with is none of the demo's business: everything stays under demo-out/.
demo: $(STAMP) ## Train, register, score and report on the bundled images, into demo-out/
	@mkdir -p "$(DEMO)/home/prefect"
	@env -u MLFLOW_TRACKING_URI -u MLFLOW_REGISTRY_URI -u PREFECT_API_URL \
		KINTSUGI_HOME="$(DEMO)/home" PREFECT_HOME="$(DEMO)/home/prefect" $(BIN)/kintsugi demo $(ARGS)

# Workers share the cores, so each computes on one of them; a module's tests stay together with their fixtures.
test: export OMP_NUM_THREADS ?= 1
test: lint ## Lint, types, layers and all tests (ARGS="-k bound" for some of them)
ifeq ($(CHROMIUM),)
	@echo "Missing: Chromium, so the browser tests are left out. On Debian: apt-get install chromium"
endif
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --durations 15 $(if $(CHROMIUM),,-m "not browser and not integration") $(ARGS)

# The same tests, each process measured: workers of pytest-xdist and the programs that tests start, too. Some tests kill
# what they start, and what a killed process ran is not counted. Allow half as long again as for `make test`.
# Of some modules only: make coverage ARGS="tests/pipelines/images" FLOOR=0, then read the rows of those modules.
coverage: export OMP_NUM_THREADS ?= 1
coverage: $(STAMP) ## Measure which lines the tests run, with a floor (FLOOR=0 with ARGS), into coverage-out/
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist loadscope $(if $(CHROMIUM),,-m "not browser and not integration") $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage html --quiet
	@$(BIN)/python -m coverage report $(if $(FLOOR),--fail-under $(FLOOR))

integration: $(STAMP) ## The same jobs with real servers, which get killed; needs PostgreSQL and nginx (ARGS="-k outages")
	@$(BIN)/python -m pytest tests/integration -m integration --timeout 900 $(ARGS)

docs: $(STAMP) ## Build the documentation into site/, with all links checked; needs no network (ARGS="--site-dir DIR")
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo "The documentation: site/index.html"

pictures: $(STAMP) ## Draw the pictures of docs/lectures.md again (ARGS="--mnist FOLDER" with large digits, ARGS="kl" one of them)
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/pictures.py $(ARGS)

wheel: $(STAMP) ## Build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(BIN)/python -m hatchling build --directory dist

release: $(STAMP) ## Check version, changelog and addresses (TAG=v0.2.0), then build into dist/
	@$(BIN)/python scripts/release.py $(TAG)
	@$(MAKE) --no-print-directory wheel

soak: $(STAMP) ## Damaged input for every reader of files, MINUTES=10 each; another seed each time
	@for entry in images jobs overrides models calibrations galleries; do \
		$(BIN)/python tests/faults/fuzz.py $$entry --minutes $(MINUTES) || exit 1; \
	done

setup: $(STAMP) ## Make .venv with the locked requirements and the project
	@echo "Set up: the command is .venv/bin/kintsugi. Next: make demo, or your own images (README.md, \"Your own images\"):"
	@echo "  .venv/bin/kintsugi train JOB.toml"

lint: $(STAMP) ## Style, layers and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

format: $(STAMP) ## Rewrite the sources in the project's style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: $(STAMP) ## Resolve the requirements again, keeping the versions that fit (UPGRADE=1 takes the newest)
	$(LOCK) --extra all --group dev --group docs --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --output-file requirements-worker.lock

clean: ## Remove caches and the demo's output
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist site demo-out coverage-out
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.uv/*' -prune -exec rm -rf {} +

distclean: clean ## The same, and the installed requirements
	@rm -rf .venv .uv

# The stamp holds the folder's path: a virtual environment that was moved does not work.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif
$(STAMP): requirements.lock pyproject.toml scripts/bootstrap
	@scripts/bootstrap
	@echo "$(CURDIR)" > $@
