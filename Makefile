# roost: `make run` serves, `make test` proves it, `make demo` shows it, `make proof` measures it. `make help` lists all.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BUILD ?= release
OUT := out/$(BUILD)
CONNECTIONS ?= 100000
DURATION ?= 30
CONFIG ?=

# ---- what must be installed, all from Debian 12
PACKAGES := build-essential pkg-config openssl android-libboringssl-dev libwslay-dev libmimalloc-dev liburing-dev \
  liblmdb-dev libinih-dev libhttp-parser-dev libjansson-dev libargon2-dev libisal-dev libzstd-dev
PACKAGES_TEST := clang libclang-rt-14-dev clang-format clang-tidy cppcheck libcmocka-dev protobuf-compiler python3 python3-protobuf \
  python3-websockets python3-lmdb chromium curl prometheus libfaketime libfuse3-dev fuse3 xfsprogs e2fsprogs mount $(if $(shell command -v npm),,nodejs npm)
PACKAGES_61 := $(PACKAGES) libcmocka-dev qemu-system-x86 busybox-static cpio e2fsprogs curl
PACKAGES_STORE := $(PACKAGES) librocksdb-dev redis-tools postgresql-15 python3
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
define install
  @mkdir -p out; missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || printf ' %s' $$p; done); \
  if [ -n "$$missing" ]; then echo "installing:$$missing"; { $(SUDO) apt-get update -qq && \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >out/apt.log 2>&1 || \
  { grep -E '^[EW]:|not found|sudo' out/apt.log | head -n 3; echo "roost: cannot install these packages: that needs Debian 12's package" \
  "sources, a network, room on the disk, and root or sudo; apt's output is in out/apt.log"; exit 1; }; fi; touch $@
endef

# ---- compilers and flags; one build kind each: release, debug (asserts marks for the simulator), asan, tsan, clang
CC_release := gcc
CC_debug := gcc
CC_asan := clang
CC_tsan := clang
CC_clang := clang
CC_fuzz := clang
CC := $(CC_$(BUILD))
WARN := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wswitch-enum -Wvla -Wundef -Wstrict-prototypes \
  -Wmissing-prototypes -Wcast-qual -Wformat=2 -Wnull-dereference -Wimplicit-fallthrough -Wframe-larger-than=16384 \
  -Werror
BASE := -std=gnu11 -D_GNU_SOURCE -I. -fno-strict-aliasing -fno-omit-frame-pointer -fstack-protector-strong -g -pthread -msse4.2
FLAGS_release := -O2 -flto=auto -D_FORTIFY_SOURCE=2
FLAGS_debug := -Og -DROOST_MARKS -DROOST_DEBUG
FLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -DROOST_MARKS -DROOST_DEBUG
FLAGS_tsan := -O1 -fsanitize=thread -DROOST_DEBUG
FLAGS_clang := -O2 -D_FORTIFY_SOURCE=2
FLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DROOST_DEBUG
ifdef BORINGSSL
SSL_CFLAGS := -isystem $(BORINGSSL)/include
SSL_LIBS := $(wildcard $(BORINGSSL)/lib/libssl.a $(BORINGSSL)/lib/libcrypto.a) -lstdc++ -Wl,--exclude-libs,ALL
else
SSL_CFLAGS := -isystem /usr/include/android
SSL_LIBS := -L/usr/lib/x86_64-linux-gnu/android -Wl,-rpath,/usr/lib/x86_64-linux-gnu/android -lssl -lcrypto
endif
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
CFLAGS = $(BASE) $(WARN) $(FLAGS_$(BUILD)) $(SSL_CFLAGS)
# warnings are errors where one file is compiled; across files, at the link, gcc guesses wrongly
LINK = $(BASE) $(FLAGS_$(BUILD)) -Wno-maybe-uninitialized -Wno-null-dereference
LIBS := -luring -lwslay -lmimalloc -llmdb -linih -lhttp_parser -ljansson -largon2 -lisal -lzstd $(SSL_LIBS) -lpthread -lm -rdynamic

# ---- what is linked with what: the four seams are object lists
SEAM_REAL := core/io_uring.c core/io_uring_bank.c core/io_uring_conn.c core/io_uring_file.c core/io_uring_listen.c core/file.c core/worker.c store/catalog_lmdb.c $(wildcard gateway/wire/tls_boringssl*.c)
SEAM_SIM := gateway/wire/tls_clear.c
COMMON := $(filter-out $(SEAM_REAL) $(SEAM_SIM),$(wildcard core/*.c store/*.c gateway/config*.c gateway/checkup.c gateway/wire/*.c \
  gateway/chat/*.c gateway/flow/*.c gateway/api/*.c))
LOADGEN := $(filter-out loadgen/main.c,$(wildcard loadgen/*.c))
object = $(patsubst %.c,$(OUT)/obj/%.o,$(1))
LIB := $(OUT)/libroost.a
LIB_LOADGEN := $(OUT)/libloadgen.a
REAL := $(call object,$(SEAM_REAL))
SIM := $(call object,$(SEAM_SIM) $(wildcard tests/sim/*.c))
FAULT := $(call object,tests/unit/fault_io.c tests/unit/log_rig.c)
FIXTURE := $(call object,tests/unit/log_fixture.c)
CRASH := $(call object,$(wildcard tests/crash/*.c))
UNIT := $(patsubst tests/unit/%.c,$(OUT)/test/%,$(wildcard tests/unit/test_*.c))
BENCH := $(patsubst bench/%.c,$(OUT)/bin/%,$(wildcard bench/bench_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,out/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

$(OUT)/obj/%.o: %.c | out/.packages
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' $(BUILD) $<
	@$(CC) $(CFLAGS) -DROOST_VERSION='"$(VERSION)"' -MMD -MP -c -o $@ $<
$(OUT)/obj/gateway/api/openapi.o: gateway/api/openapi.json
ifeq ($(BUILD),release) # what names its commit is compiled again when that changes: reports tell it
$(shell mkdir -p out && { [ "$$(cat out/version 2>&1)" = "$(VERSION)" ] || echo "$(VERSION)" >out/version; })
$(call object,$(shell grep -lr --include='*.c' ROOST_VERSION gateway loadgen)): out/version
endif
$(LIB): $(call object,$(COMMON))
	@rm -f $@; $(if $(filter gcc,$(CC)),gcc-ar,ar) rcs $@ $^
$(LIB_LOADGEN): $(call object,$(LOADGEN))
	@rm -f $@; $(if $(filter gcc,$(CC)),gcc-ar,ar) rcs $@ $^
$(OUT)/bin/roost: $(call object,$(wildcard gateway/main*.c)) $(REAL) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS)
$(OUT)/bin/roost-loadgen: $(call object,loadgen/main.c) $(LIB_LOADGEN) $(REAL) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS)
$(OUT)/bin/sim: $(SIM) $(LIB_LOADGEN) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS)
$(CRASH): CFLAGS += -isystem /usr/include/fuse3
$(CRASH): | out/.packages-test
TAPPED := file_write file_sync file_rename file_remove file_sync_directory merge_create move_create look_create look_step io_wall_ms
$(OUT)/bin/crash: $(CRASH) $(REAL) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS) -lfuse3 $(TAPPED:%=-Wl,--wrap=%)
$(OUT)/bin/bench_%: $(OUT)/obj/bench/bench_%.o $(LIB_LOADGEN) $(REAL) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS)
# unit tests of the release build: optimised across files once, in units.o, not once per test; but not with those
# that replace functions of the product, and elsewhere there is nothing to be gained
$(OUT)/units.o: $(LIB_LOADGEN) $(REAL) $(LIB)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -r -flinker-output=nolto-rel -o $@ -Wl,--whole-archive $^
UNIT_ARCHIVES := $(LIB_LOADGEN) $(REAL) $(LIB)
$(OUT)/test/test_%: $(OUT)/obj/tests/unit/test_%.o $(if $(filter release,$(BUILD)),$(OUT)/units.o,$(UNIT_ARCHIVES))
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS) -lcmocka
$(OUT)/test/test_api $(OUT)/test/test_auth $(OUT)/test/test_lane_count: $(OUT)/test/%: $(OUT)/obj/tests/unit/%.o $(UNIT_ARCHIVES)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS) -lcmocka
# and those of the log, whose calls of the system fault_io.c answers (all but those of a snapshot)
LOGGED := $(FAULT) $(call object,$(filter-out store/snapshot.c,$(filter core/% store/%,$(COMMON))))
$(OUT)/units_log.o: $(LOGGED)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -r -flinker-output=nolto-rel -o $@ $^
$(filter $(OUT)/test/test_log_%,$(UNIT)): $(OUT)/test/%: $(OUT)/obj/tests/unit/%.o $(FIXTURE) $(if $(filter release,$(BUILD)),$(OUT)/units_log.o,$(FAULT) $(LIB))
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -o $@ $^ $(LIBS) -lcmocka
ifeq ($(BUILD),fuzz)
out/fuzz/fuzz_recovery out/fuzz/fuzz_archive out/fuzz/fuzz_sidecar: out/fuzz/%: out/fuzz/obj/tests/fuzz/%.o $(FAULT) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
out/fuzz/fuzz_%: out/fuzz/obj/tests/fuzz/fuzz_%.o $(REAL) $(LIB)
	@mkdir -p $(@D)
	@printf '  %-8s %s\n' link $@
	@$(CC) $(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
else
out/fuzz/fuzz_%: always | out/.packages-test
	@$(MAKE) --no-print-directory BUILD=fuzz $@
endif
-include $(shell find out -name '*.d' 2>/dev/null)
.SECONDARY:

out/.packages: Makefile
	$(call install,$(PACKAGES))
out/.packages-test: Makefile
	$(call install,$(PACKAGES) $(PACKAGES_TEST))
out/.packages-6.1: Makefile
	$(call install,$(PACKAGES_61))
out/.packages-store: Makefile
	$(call install,$(PACKAGES_STORE))

.PHONY: always help run build binaries unit fuzz benches sim test kill-test crash model faults test-6.1 demo proof bench-store format clean
help: ## this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
run: build ## build and serve on wss://localhost:8443/connect
	@exec $(OUT)/bin/roost serve $(if $(CONFIG),--config $(CONFIG))
build: $(OUT)/bin/roost $(OUT)/bin/roost-loadgen ## the two binaries
unit: $(UNIT)
benches: $(BENCH)
fuzz: out/.packages-test
	@$(MAKE) --no-print-directory BUILD=fuzz $(FUZZ)
sim: $(OUT)/bin/sim ## the simulator: out/debug/bin/sim SEED (BUILD=debug)
test: out/.packages-test ## every automated test; last line: N passed, N failed
	@tests/run
kill-test: build out/.packages-test ## ROUNDS=200: SIGKILL under load and restart; nothing acknowledged may change
	@ROUNDS=$(or $(ROUNDS),200) tests/e2e/check_kill
crash: out/.packages-test ## POINTS=20000: power cuts under the store on ext4 and xfs (root; 300 are in make test)
	@POINTS=$(or $(POINTS),20000) tests/crash/check_crash
model: $(OUT)/test/test_log_model ## STEPS=1000000: the log against a model (100,000 are in make test)
	@ROOST_LOG_STEPS=$(or $(STEPS),1000000) $(OUT)/test/test_log_model
faults: $(OUT)/test/test_log_lifecycle $(OUT)/test/test_log_recovery ## every call fails, every bit flips (make test: one in 16)
	@ROOST_EVERY_CALL=1 $(OUT)/test/test_log_lifecycle
	@ROOST_EVERY_BIT=1 $(OUT)/test/test_log_recovery
test-6.1: out/.packages-6.1 ## io and end-to-end on Debian 12's own kernel, emulated (some minutes)
	@SUDO=$(SUDO) tests/e2e/kernel_6_1
demo: build ## 2,000 users chat for 30 s; a report with the oracle's verdict
	@bench/demo
proof: build ## CONNECTIONS=100000 DURATION=30: memory, rates, latency, oracle → out/proof/report.json
	@bench/proof $(CONNECTIONS) $(DURATION)
bench-store: out/.packages-store $(OUT)/bin/bench_log ## the log beside RocksDB, Redis and PostgreSQL, each ack synced → out/bench-store/store.txt
	@bench/store
format: ## clang-format over the tree
	@clang-format -i $$(git ls-files '*.c' '*.h')
clean: ## remove what was built
	@rm -rf out
