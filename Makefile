# edgeproxy's workshop. Every target sets up what it needs; ARGS="…" is handed to the command that a target runs.
#
#   make setup PYTHON=/path/to/python3.13    builds .venv with that interpreter
#   make test ARGS="tests/ledger -k ring"    runs some of the tests
#   make test JOBS=1                         runs them one after the other
#   make lock UPGRADE=1                      takes the newest versions that pyproject.toml allows

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run demo-redis tools test lint format bench fast reference lock clean

BIN := .venv/bin
INSTALLED := .venv/.installed
COMPILED := build/compiled/.stamp
ARGS ?=
UPGRADE ?=
# Tests at a time. Most of them wait (for a node, for a timeout), so there are two for each processor. Modules are taken as
# they come: by their number of tests, as is xdist's way, those with few and long ones would be left for the end.
JOBS ?= $(shell expr 2 '*' $$(nproc))
PYTHON ?=

# What each of them brings along through apt where it may: a command or a file, and the package that has it.
NGINX_LUA := /usr/lib/nginx/modules/ngx_http_lua_module.so:libnginx-mod-http-lua
TEST_TOOLS := redis-server:redis-server nginx:nginx $(NGINX_LUA) wrk:wrk logrotate:logrotate node:nodejs npm:npm
LUA_REDIS := /usr/share/lua/5.1/nginx/redis.lua:lua-nginx-redis
BENCH_TOOLS := redis-server:redis-server nginx:nginx $(NGINX_LUA) $(LUA_REDIS) varnishd:varnish wrk:wrk

# Debian keeps nginx, redis-server and varnishd where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHON

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: $(INSTALLED) ## build .venv and install edgeproxy in it (the targets below call it themselves)
	@if [ -e $(COMPILED) ] && [ -n "$$(find edgeproxy -name '*.py' -newer $(COMPILED) -print -quit)" ]; then \
	  echo "build/compiled is older than the sources: removed (make fast builds it anew)"; rm -rf build/compiled; fi

$(INSTALLED): pyproject.toml requirements.lock scripts/setup.sh
	@scripts/setup.sh

run: setup ## run the demo: an origin, the node in front of it, and curl lines to try
	@exec $(BIN)/edgeproxy demo $(ARGS)

demo-redis: setup ## run the demo with a Redis Cluster that two nodes share (brings redis-server along where it may)
	@scripts/apt-install.sh redis-server:redis-server || true
	@exec $(BIN)/edgeproxy demo --redis $(ARGS)

tools: ## install what the tests run beside the node (redis-server, nginx, wrk, logrotate, Node.js) through apt and npm
	@scripts/apt-install.sh $(TEST_TOOLS)
	@scripts/node-packages.sh

test: setup ## run all tests (brings the tools along where it may)
	@{ scripts/apt-install.sh $(TEST_TOOLS) && scripts/node-packages.sh; } || echo "Tests that need what is missing are skipped." >&2
	@exec $(BIN)/python -m pytest --numprocesses $(if $(filter 1,$(JOBS)),0,$(JOBS)) --dist loadscope --no-loadscope-reorder $(ARGS)

lint: setup ## check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## put the code into the house format, imports sorted
	$(BIN)/ruff check --select I --fix --quiet
	$(BIN)/ruff format

fast: $(COMPILED) ## compile the data plane with mypyc into build/compiled (needs a C compiler)
	@echo "to run it: PYTHONPATH=$(CURDIR)/build/compiled"

$(COMPILED): $(INSTALLED) scripts/compile.py $(shell find edgeproxy -name '*.py')
	@$(BIN)/python scripts/compile.py build/compiled

bench: setup ## measure edgeproxy beside nginx, Varnish and mitmproxy (brings them along where it may)
	@scripts/apt-install.sh $(BENCH_TOOLS)
	@$(MAKE) --no-print-directory fast || echo "edgeproxy compiled is left out." >&2
	@exec $(BIN)/python -m bench $(ARGS)

reference: setup ## write docs/configuration.md and conf/edgeproxy.toml from the configuration's types
	$(BIN)/python -m edgeproxy.config.reference $(ARGS)

lock: setup ## resolve requirements.lock: every package with its hashes, for CPython 3.12 and newer
	@scripts/lock.sh $(if $(UPGRADE),--upgrade) $(ARGS)

clean: ## remove .venv and all that the tools left behind
	rm -rf .venv .setup.lock .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
