# A thin cover over cmake. `make` builds build/edm; `make check` and `make demo` install what they
# need first.
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
MAKEFLAGS += --no-print-directory

.PHONY: all
all: $(BUILD)/configured
	cmake --build $(BUILD) --parallel $(JOBS)

# cmake leaves a cache behind also where it fails.
$(BUILD)/configured:
	cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDM_TESTS=OFF
	touch $@

.PHONY: demo
demo: deps
	@$(MAKE) all
	bench/demo $(BUILD)/edm

# Tables, and bench/results.json; bench/README.md tells what is measured. One alone: bench/run NAME. Then
# bench/plot writes docs/performance.md and its plots.
.PHONY: bench
bench: deps-bench
	@$(MAKE) all
	bench/run --edm=$(BUILD)/edm

# That benchmarks which are ended leave nothing behind.
.PHONY: bench-ended
bench-ended: deps-bench
	@$(MAKE) all
	tests/bench/ended.py $(BUILD)/edm bench

# Ends with the line in which ctest sums up.
.PHONY: check
check: deps-check
	@tests/check.sh $(BUILD)/check $(JOBS)

# kill -9 of a DMS under load, as often as make check does it twenty times over.
KILLS ?= 1000
SEED ?= $(shell date +%s)
.PHONY: kill-test
kill-test: deps-check
	@$(MAKE) all
	/usr/bin/python3 -B tests/dms/test_kill_served.py $(BUILD)/edm $(KILLS) $(SEED)

# Power cuts, kills and failed syncs at random moments of a store: CUTS for each durability.
CUTS ?= 20000
.PHONY: power-cut
power-cut: deps-check
	@cmake -S . -B $(BUILD)/power-cut >/dev/null
	@cmake --build $(BUILD)/power-cut --parallel $(JOBS) --target dms_test_power_cut
	$(BUILD)/power-cut/tests/dms/dms_test_power_cut $(CUTS) $(SEED)

# The budget of a running program is changed so many times.
CHANGES ?= 1000
.PHONY: limit-test
limit-test: deps-check
	@cmake -S . -B $(BUILD)/limit >/dev/null
	@cmake --build $(BUILD)/limit --parallel $(JOBS) --target edm run-verify
	EDM_CHANGES=$(CHANGES) /usr/bin/python3 -B tests/run/limit.py $(BUILD)/limit/edm \
	    $(BUILD)/limit/tests/run Budget.test_many_changes

# Everything at once for SECONDS: threads, forks, execs, random memory calls, DMSs that are killed, processes that
# are stopped, deaths; in the plain build and, for as long each, in the sanitizer builds.
SECONDS ?= 600
STRESS = address thread
.PHONY: stress
stress: deps-check
	@cmake -S . -B $(BUILD)/stress >/dev/null
	@cmake --build $(BUILD)/stress --parallel $(JOBS)
	/usr/bin/python3 -B tests/run/stress.py $(BUILD)/stress/edm $(BUILD)/stress/tests/run $(SECONDS) $(SEED)
	@for name in $(STRESS); do \
	    cmake -S . -B $(BUILD)/stress-$$name -DEDM_SANITIZE=$$name >/dev/null && \
	    cmake --build $(BUILD)/stress-$$name --parallel $(JOBS) --target edm && \
	    tests/run/sanitized.sh $$name /usr/bin/python3 -B tests/run/stress.py $(BUILD)/stress-$$name/edm \
	        $(BUILD)/stress/tests/run $(SECONDS) $(SEED) || exit 1; \
	done

# Java, PostgreSQL, Python's own tests, a parallel build and others: larger, and more of them, than in make check.
.PHONY: suites
suites: deps-suites
	@cmake -S . -B $(BUILD)/stress >/dev/null
	@cmake --build $(BUILD)/stress --parallel $(JOBS)
	EDM_LONG=1 /usr/bin/python3 -B tests/run/suites.py $(BUILD)/stress/edm $(BUILD)/stress/tests/run

.PHONY: docker-test
docker-test:
	tests/docker/run.sh

.PHONY: install
install: all
	cmake --install $(BUILD) --prefix $(PREFIX)

# Debian packages; says and does nothing where they are all there.
.PHONY: deps deps-check deps-suites deps-bench
deps:
	@tests/deps.sh
deps-check:
	@tests/deps.sh check
deps-suites:
	@tests/deps.sh check suites
deps-bench:
	@tests/deps.sh bench

.PHONY: format-check
format-check:
	@tests/lint.sh format

.PHONY: format
format:
	@tests/lint.sh reformat

.PHONY: tidy
tidy:
	@cmake -S . -B $(BUILD)/tidy >/dev/null
	@tests/lint.sh tidy $(BUILD)/tidy $(JOBS)

.PHONY: clean
clean:
	rm -rf $(BUILD)
