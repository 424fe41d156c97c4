# Tussis' everyday commands; `make help` lists them. POSIX make and sh will do, no root, no Docker.

# Recipes read these from the environment, quoted: a path may hold spaces.
AUDIO =
ARGS =
export AUDIO
export PYTHON

VENV = .venv
RUN = $(VENV)/bin
# A stamp is as new as the last installation; another pyproject.toml or constraints.txt makes it stale.
STAMPS = $(VENV)/stamps
CHECKED = producer worker shared tests migrations training benchmarks

.DEFAULT_GOAL = help
.PHONY: help install demo test acceptance speed soak lint faults bench fuzz train images-check release-check env constraints clean
.DELETE_ON_ERROR:

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo
	@echo '  PYTHON=/path/to/python3   which Python to build .venv with (3.11 to 3.13; default: the first found)'

install: $(STAMPS)/dev  ## create .venv and install everything, tests and checks included

demo: $(STAMPS)/demo  ## real servers, a worker, recordings, results; AUDIO=DIR takes your own recordings
	@if [ -n "$$AUDIO" ]; then exec $(RUN)/tussis demo --audio "$$AUDIO"; else exec $(RUN)/tussis demo; fi

# Four processes for two cores: half of the time, a test waits for servers, workers and deadlines. Files go to them in
# their order, because xdist's own order has the files with the fewest tests last, and the longest of them alone at the
# end.
IN_PARALLEL = -n 4 --dist loadfile --no-loadscope-reorder

test: $(STAMPS)/dev  ## run the tests of the code, against real servers; ARGS='-k name' chooses
	$(RUN)/python -m pytest -m 'not acceptance and not faults_only and not slow and not performance' \
	    $(IN_PARALLEL) $(ARGS)

acceptance: $(STAMPS)/dev  ## run the tests of commands, workers and the whole product, as its users do
	$(RUN)/python -m pytest -m 'acceptance and not faults_only and not slow and not performance' \
	    $(IN_PARALLEL) $(ARGS)

speed: $(STAMPS)/dev  ## hold the promised speed, in short measurements (a quarter of an hour, alone on the machine)
	$(RUN)/python -m pytest -m 'performance and not slow' tests/performance $(ARGS)

# The first folder is named so that its conftest.py, which prints the table, is loaded in the process that reports.
faults: $(STAMPS)/dev  ## run the tests that kill, freeze, cut and fill
	$(RUN)/python -m pytest -m faults_only -n 3 --dist worksteal \
	    tests/faults tests/acceptance tests/integration $(ARGS)

soak: $(STAMPS)/dev  ## run the pipeline under random faults; ARGS='--minutes 20 --seed 7'
	$(RUN)/python -m tests.soak $(ARGS)

lint: $(STAMPS)/dev  ## ruff, mypy --strict, import rules
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy $(CHECKED)
	$(RUN)/lint-imports

bench: $(STAMPS)/dev  ## measure everything (an hour); tables on the screen, JSON in build/bench
	mkdir -p build/bench
	$(RUN)/tussis bench inference --json build/bench/inference.json
	for what in start processes preprocess jail audit store rows gateway latency bound pipeline; do \
	    $(RUN)/python -m benchmarks $$what --json build/bench/$$what.json || exit $$?; \
	done
	[ -z "$$TUSSIS_TEST_DATA" ] || $(RUN)/python -m benchmarks events --json build/bench/events.json
	$(RUN)/python -m pytest -s -m 'performance and slow' $(ARGS)

fuzz: $(STAMPS)/dev  ## decode mutated recordings in the jail; needs TUSSIS_TEST_DATA; ARGS='--files 200000 --seed 7'
	$(RUN)/python -m benchmarks fuzz $(ARGS)

train: $(STAMPS)/dev  ## train the reference model anew (an hour on two cores; goes on where it was broken off); needs TUSSIS_TEST_DATA
	$(RUN)/python -m training train $(ARGS)

images-check: $(STAMPS)/dev  ## run what the images run, in bare environments with exactly their extras (minutes, 5 GB)
	$(RUN)/python -m pytest -m slow tests/integration/deploy $(ARGS)

release-check: $(STAMPS)/dev  ## build wheel and sdist, install them bare, run an analysis from there (minutes, 5 GB)
	$(RUN)/python -m pytest tests/acceptance/test_release.py $(ARGS)

env:  ## write .env for docker-compose.yml, with random passwords
	@sh deploy/make-env.sh

constraints: $(STAMPS)/dev  ## write constraints.txt from .venv, after the tests passed with newer versions
	$(RUN)/python .ci/constraints.py

clean:  ## remove caches, builds, and the demo's servers and data; .venv stays
	@sh .ci/remove-servers .tussis
	rm -rf .tussis build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find producer worker shared tests migrations training benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/demo: pyproject.toml constraints.txt | $(RUN)/pip
	@echo "installing Tussis with its worker and servers into $(VENV) (torch is large: minutes, and 5 GB)"
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,models,embedded]' -c constraints.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: pyproject.toml constraints.txt | $(RUN)/pip
	@echo "installing Tussis with everything for its tests into $(VENV) (torch is large: minutes, and 5 GB)"
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@mkdir -p $(STAMPS) && touch $(STAMPS)/demo $@

$(RUN)/pip:
	@sh .ci/make-venv $(VENV)
