# Builds, tests and checks p2pframe. Needs make and a Python of 3.8 or newer; the rest is fetched into
# virtual environments of its own (.venv, .venv-lint, .venv-tox, .venv-bench) and never into the system.
# `make help` lists the targets.

# The first interpreter that really runs: a version manager's stub may carry the name and fail.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then echo $$python; break; fi; done)
ifeq ($(PYTHON),)
$(error no Python of 3.8 or newer runs here: install python3, or say `make PYTHON=/path/to/python3`)
endif
endif

# Fixed, so that a new release of a checker does not fail old code; the last mypy that knows Python 3.8
RUFF = ruff==0.8.4
MYPY = mypy==1.14.1
PYTEST = .venv/bin/python -m pytest
MAKE_VENV = $(PYTHON) tools/venv.py

.DEFAULT_GOAL := all
.PHONY: all help test quick lint tox bench clean FORCE

all: bin/p2pframe bin/libp2pframe.zip  ## the program and the importable library, below bin/

bin/%: FORCE  ## bin/NAME: one executable file of apps/NAME or tests/NAME.py; 'bin/*': all of them
	@$(PYTHON) tools/pack.py '$@'

test: .venv/ready  ## all tests
	$(PYTEST) $(ARGS)

quick: .venv/ready  ## the fast part: no test marked slow or lab
	$(PYTEST) -m 'not slow and not lab' $(ARGS)

lint: .venv-lint/ready  ## ruff and mypy
	.venv-lint/bin/ruff check .
	.venv-lint/bin/mypy

tox: .venv-tox/ready  ## the fast part and the interoperation tests under every Python that tox finds
	.venv-tox/bin/tox $(ARGS)

bench:  ## the message layer's speed beside asyncio, pyzmq and bare sockets; ARGS='oneway_64 --rounds 3'
	@$(PYTHON) -m bench.wire $(ARGS)

.venv/ready: tools/venv.py
	@$(MAKE_VENV) .venv pytest

.venv-lint/ready: tools/venv.py Makefile
	@$(MAKE_VENV) .venv-lint $(RUFF) $(MYPY)

.venv-tox/ready: tools/venv.py
	@$(MAKE_VENV) .venv-tox tox

clean:  ## removes all that was built, fetched or cached
	rm -rf bin .venv .venv-lint .venv-tox .venv-bench .tox .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z%/]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
	printf '  make %-8s %s\n' "$$name" "$$what"; done
	@echo "  ARGS='-k name' goes to pytest or tox; PYTHON=python3.9 chooses the interpreter (now $(PYTHON))"
