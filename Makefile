# Every target sets itself up in .venv; nothing but Python 3.11+, git and make is needed.

VENV := .venv
BIN := $(VENV)/bin
HUB5 := .venv-hub5
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)
METADATA := setup.py pyproject.toml era_hub/_version.py
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-hub5 lint format clean distclean

help: ## Show this help
	@echo 'make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Start a hub with the market on this machine (ARGS go to era-hub demo)
	@$(BIN)/era-hub demo --dir .demo $(ARGS)

test: lint ## Run the checks and all tests (ARGS go to pytest, e.g. ARGS="-m 'not browser'")
	@echo "Running the tests ..."
	@$(BIN)/python -m pytest --numprocesses=auto --dist=loadgroup $(ARGS)

test-hub5: $(HUB5)/.test ## Run the spawners' tests with JupyterHub 5.5, which z2jh ships
	@echo "Running the spawners' tests with JupyterHub 5.5 ..."
	@$(HUB5)/bin/python -m pytest --numprocesses=auto --dist=loadgroup tests/spawner \
		-m "not browser" -k "not hub_that_dies" $(ARGS)

lint: $(VENV)/.test ## Check style, types and the layering of imports
	@echo "Checking style ..."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "Checking types ..."
	@$(BIN)/mypy
	@echo "Checking imports ..."
	@$(BIN)/lint-imports

format: $(VENV)/.test ## Mend style where it can be mended automatically
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove caches and build outputs
	@rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache \
		.import_linter_cache
	@find . \( -path ./$(VENV) -o -path ./$(HUB5) \) -prune -o -type d \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## Remove also the environments and the demo's data
	@rm -rf $(VENV) $(HUB5) .demo

# Python writes pip last, so an environment that has it is whole.
$(BIN)/pip:
	@set -e; for python in $(PYTHONS); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Creating $(VENV) with $$("$$python" --version) (once) ..."; \
			"$$python" -m venv $(VENV); \
			exit; \
		fi; \
	done; \
	echo "Python 3.11 or later is needed; none was found. Name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

# An editable install leaves out setup.py's data_files, by which Jupyter finds the
# extension for JupyterLab; links do instead, so that a reload of the page shows a change.
LAB := $(CURDIR)/extension/era_extension/lab
define LINK_LABEXTENSION
mkdir -p $(VENV)/share/jupyter/labextensions $(VENV)/etc/jupyter/jupyter_server_config.d
rm -rf $(VENV)/share/jupyter/labextensions/era-extension
ln -s '$(LAB)/labextension' $(VENV)/share/jupyter/labextensions/era-extension
ln -sf '$(LAB)/era_extension.json' $(VENV)/etc/jupyter/jupyter_server_config.d/
endef

# Installing again is needed only when the metadata changes: the packages are
# installed in editable form.
$(VENV)/.demo: $(METADATA) | $(BIN)/pip
	@echo "Installing ERA Hub, JupyterHub and JupyterLab (once, takes a few minutes) ..."
	@$(PIP_INSTALL) --editable '.[hub,notebook,demo]'
	@$(LINK_LABEXTENSION)
	@touch $@

$(VENV)/.test: $(METADATA) | $(BIN)/pip
	@echo "Installing ERA Hub and the test tools (once, takes a few minutes) ..."
	@$(PIP_INSTALL) --editable '.[hub,sim,notebook,demo,test]'
	@$(LINK_LABEXTENSION)
	@touch $(VENV)/.demo $@

# JupyterHub 5.5 in front of everything that is in the other environment.
$(HUB5)/.test: $(VENV)/.test
	@echo "Adding JupyterHub 5.5 beside it (once) ..."
	@$(BIN)/python -m venv --clear --without-pip $(HUB5)
	@other=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		here=$$($(HUB5)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		echo "import site; site.addsitedir('$$other')" > "$$here/other-environment.pth"
	@$(BIN)/python -m pip --python $(HUB5)/bin/python install --quiet --disable-pip-version-check \
		--no-deps --ignore-installed 'jupyterhub>=5.5,<6'
	@ln -s '$(CURDIR)/$(BIN)/configurable-http-proxy' $(HUB5)/bin/
	@touch $@
