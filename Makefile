# Two commands: `make demo` runs the main job, `make test` passes the tests. Each does its own set-up.
UV = $(shell python3 tools/get_uv.py)
RUN = "$(UV)" run --frozen --quiet
SANDBOXED = journeys board gateway evidence cli agents workorders worker projects tasks
INSIDE = $(addprefix tests/,$(SANDBOXED))  # they start sandboxes: two at a time, the other tests mostly wait; the longest first
WAITING = -n 3 --dist loadfile $(addprefix --ignore=,$(INSIDE) tests/sandboxes)
SOME = and not extra_agents

.PHONY: help setup demo test test-all check format bench chaos clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: ## install everything (uv too) into this folder
	@"$(UV)" sync --frozen --quiet

demo: setup ## three work orders, then ten tickets, by the script agent in isolated sandboxes; no key, no network
	@$(RUN) shopfloor demo
	@$(RUN) python examples/ten_tickets/run.py

test: setup ## all tests, with the real Claude, Codex and OpenCode
	@$(RUN) python tools/get_agents.py codex opencode >/dev/null
	@$(RUN) pytest $(WAITING)
	@$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone $(SOME)" $(INSIDE)
	@$(RUN) pytest -m "alone $(SOME)" $(INSIDE)
	@$(RUN) pytest tests/sandboxes

test-all: setup ## the same with Gemini, OpenHands and mini-swe-agent (some 2 GB more to install)
	@$(RUN) python tools/get_agents.py codex opencode gemini openhands mini >/dev/null
	@$(MAKE) --no-print-directory test SOME=

check: setup ## format, lint, types, import floors, dependencies, sizes
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-cache
	@$(RUN) deptry src
	@$(RUN) python tools/check_sizes.py

format: setup ## put the code in shape
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

bench: setup ## speed, as ratios against the raw limit of the same run
	@$(RUN) python -m bench

chaos: setup ## kill -9 at many seeded instants (SEEDS=20)
	@$(RUN) python -m tests.chaos --seeds $(or $(SEEDS),20)

clean: ## remove what set-up made
	rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis
