# The whole of the set-up and of the checks. Needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SITE   := .venv-site
ARGS   ?=
SLOWEST := --durations=15 --durations-min=1

# There are directories of these names, `docs` among them, which would else be taken for what is made.
.PHONY: demo dev test quick nodes browser engines llama-server chaos \
        soak gpu check audit fresh lock docs site messages clean

# Images set it to stay small; each worker, and each process that the tests start, would then compile
# all of yibu and of the tests anew.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/installed          ## deploy a packaged model and talk to it (ARGS=--once: check, stop)
	@$(BIN)/yibu demo $(ARGS)

dev: $(VENV)/dev                 ## everything needed to work on yibu

# What fails beside other tests is tried once more by itself: a test that then passes hangs on the machine's
# load, which is said, and is to be mended; one that fails again fails the run.
define tests
$(BIN)/python -m pytest $(1) $(2) || { \
  printf '\n== once more, alone, what failed ==\n'; \
  $(BIN)/python -m pytest $(1) -n 0 --last-failed --last-failed-no-failures none && \
  printf '\n== these passed alone: they hang on the load of the machine ==\n'; }
endef

FAST  := -m "not engine and not browser"
WHOLE := tests/e2e tests/commands $(wildcard tests/node/test_*.py) tests/hub/test_processes.py \
         tests/environments/test_manager.py
QUICK := $(FAST) --ignore=tests/speech --ignore=tests/console --ignore=tests/source $(WHOLE:%=--ignore=%)

# Chaos comes last: llama.cpp is among its engines where the part before it has installed that.
# Beside the checks, which take one processor, the tests are imported once: each worker would else
# compile them and their packages anew.
PARTS := check quick nodes browser site engines chaos

test: $(VENV)/dev                ## the whole test suite, real engines included; a part that fails stops no other
	@$(BIN)/python -m pytest $(FAST) --ignore=tests/speech --collect-only >/dev/null 2>&1 & \
	took=; failed=; for part in $(PARTS); do \
	  begin=$$(date +%s); \
	  $(MAKE) --no-print-directory $$part && end=passed || { end=FAILED; failed="$$failed $$part"; }; \
	  took="$$took$$(printf '\n%-8s %-6s %5d s' $$part $$end $$(($$(date +%s) - begin)))"; \
	done; \
	echo "$$took"; \
	test -z "$$failed" || { echo "FAILED:$$failed"; exit 1; }

quick: $(VENV)/dev               ## what is run between two changes; speech's tests run in its environments
	@$(call tests,$(QUICK) $(SLOWEST),-n 5 --dist worksteal)

nodes: $(VENV)/dev               ## processes: commands, pulls, supervisors and nodes with engines made for tests
	@$(call tests,$(FAST) $(WHOLE) $(SLOWEST),-n 6 --dist worksteal)

browser: $(VENV)/dev             ## the console in a Chromium: Debian's, or one from npm in the test cache
	-@$(BIN)/python -m tests.support.chromium
	@$(call tests,-m "browser and not engine" tests/console $(SLOWEST),-n 2 --dist loadfile)

engines: $(VENV)/dev             ## real engines; the first run installs them, see YIBU_TEST_CACHE
	-@$(MAKE) --no-print-directory llama-server
	@$(call tests,-m engine $(SLOWEST),-n 3 --dist loadfile --no-loadscope-reorder)

llama-server: $(VENV)/dev        ## llama.cpp's server from source, once; without it its tests are skipped
	timeout 1500 $(BIN)/python -m tests.support.llama_server

chaos: $(VENV)/dev               ## misbehaving engines and clients against a node, for three minutes
	$(BIN)/python -m pytest tests/chaos tests/e2e/test_upgrade.py -m chaos -s --chaos-seconds 180 $(ARGS)

soak: $(VENV)/dev                ## the same for an hour, after many more random examples
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile thorough --timeout 7200 -n 2 --ignore=tests/speech
	$(BIN)/python -m pytest tests/chaos tests/e2e/test_upgrade.py -m chaos -s --chaos-seconds 3600 $(ARGS)

gpu: $(VENV)/dev                 ## all that waits for a card, as a table for docs/benchmarks.md (ARGS=--install)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

check: $(VENV)/dev               ## lint, types, import rules, and tests that read the source as text
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/source

audit: $(VENV)/dev               ## known vulnerabilities of the pinned packages, where an index has advisories
	@$(BIN)/python scripts/audit.py $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("yibu needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# The lock's uv, which then installs the rest: in a quarter of the time that pip takes.
$(VENV)/uv: requirements/core.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c requirements/core.lock uv
	@touch $@

$(VENV)/installed: pyproject.toml requirements/core.lock | $(VENV)/uv
	$(BIN)/python scripts/install.py -c requirements/core.lock -e .
	@touch $@

$(VENV)/dev: pyproject.toml requirements/dev.lock | $(VENV)/uv
	$(BIN)/python scripts/install.py -r requirements/dev.lock
	$(BIN)/python scripts/install.py --no-deps -e .
	@touch $@ $(VENV)/installed

fresh:                           ## the demo on a bare Debian, where root can make one; else says why not
	@command -v debootstrap >/dev/null || { [ "$$CI" = true ] && apt-get install -y -qq debootstrap >/dev/null; } || true
	@scripts/fresh_machine.sh || [ $$? -eq 77 ]

lock: | $(VENV)/uv               ## pin what pyproject.toml asks for, anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/core.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --group dev pyproject.toml -o requirements/dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --group docs -o requirements/docs.lock

docs: $(VENV)/dev               ## write the generated documents anew
	$(BIN)/python scripts/generate_docs.py

# In an environment of its own: nothing of it is needed to work on yibu.
$(SITE)/installed: requirements/docs.lock | $(VENV)/bin/python
	$(BIN)/python -m venv --clear $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements/docs.lock
	@touch $@

site: export NO_MKDOCS_2_WARNING := 1
site: $(SITE)/installed          ## the documentation site, into build/site; a broken link or anchor fails it
	$(SITE)/bin/mkdocs build --quiet --strict
	$(SITE)/bin/mkdocs build --quiet --strict --config-file mkdocs.zh.yml

messages: $(VENV)/dev           ## bring the catalogues of texts up to date, and compile them
	$(BIN)/python scripts/messages.py

clean:
	rm -rf $(VENV) $(SITE) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
