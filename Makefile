# Everything a newcomer needs: each target is one command on a fresh machine with Python 3.11+, git and make.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench serve clean

RUN := .venv/bin

help: ## Show these targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

setup: ## Make .venv with everything the project needs
	@scripts/setup

demo: setup ## Run the main job and print what was done: 249 tenants; or PLATFORM=planner, PLATFORM=agency, on PostgreSQL
	@cd examples && ../$(RUN)/python -m $(or $(PLATFORM),countries).demo

test: setup ## Run every check and test; installs the servers they need
	@scripts/servers
	@$(MAKE) --no-print-directory lint
	@$(RUN)/pytest -n $$(($$(nproc) + 1)) --dist worksteal # a third of the time tests wait

lint: setup ## Check style, types and layers
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports >/dev/null || $(RUN)/lint-imports

bench: setup ## Measure; `make bench NAME=resolve` runs one
	@$(RUN)/python -m bench $(NAME)

serve: setup ## Serve the example Storyfront at http://localhost:8000; or PLATFORM=planner, PLATFORM=agency
	@examples/$(or $(PLATFORM),storyfront)/serve

clean: ## Remove what the other targets made
	rm -rf .venv .tools var dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
