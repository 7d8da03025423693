# The two that matter: `make demo` shows it, `make test` decides.

BIN      = bin/cstproxy
FUZZTIME ?= 60s
RUNS     ?= 30
RTO      ?= ^TestRTO$$
KEEP     ?=
EVENTS   ?=
PREFIX   = /usr/local
DEMO     =
BENCH    =
VERSION  = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Unit tests run with the race detector; the end-to-end tests run the product's binary as it ships,
# and the tests of what the allocator or the clock say are meaningless under it.
TESTFLAGS = -timeout 25m

# Servers of these are fetched for `make test` where npm is (TESTED= leaves them out); `make versions`
# tests 10 to 18.
TESTED   = $(if $(shell command -v npm),10 12 17)

.PHONY: demo build install deps test versions oracle unit e2e rto soak sim lint fuzz bench-quick clean

demo: ## a primary, two standbys, cstproxy on port 9999, a failover now and then, until Ctrl-C; DEMO=--check judges
	@scripts/install-deps demo
	@$(MAKE) --no-print-directory build
	@exec $(BIN) demo $(DEMO)

build: ## bin/cstproxy
	go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/cstproxy

install: build
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/cstproxy

deps:
	@scripts/install-deps test

test: deps lint build ## everything that decides
	@$(if $(TESTED),:,echo "servers of other versions than the installed PostgreSQL are left out")
	CST_VERSIONS=$$($(if $(TESTED),scripts/postgres-versions $(TESTED))) && export CST_VERSIONS && \
		go test -race $(TESTFLAGS) $$(go list ./... | grep -v /e2e$$)
	cd router/oracle && go test $(TESTFLAGS) ./...
	CST_BINARY=$(CURDIR)/$(BIN) go test -count=1 -p 1 -timeout 20m $(TESTFLAGS) ./cmd/cstproxy/e2e ./ha/e2e

versions: deps ## what cstproxy does to servers, with those of PostgreSQL 10 to 18, and 15 of two minor versions
	CST_VERSIONS=$$(scripts/postgres-versions) && export CST_VERSIONS && \
		go test -count=1 -v $(TESTFLAGS) -run '^TestServersOfEveryVersion|^TestMinorVersions' ./ha/operation ./proxy/catalog ./cmd/cstproxy/e2e

oracle: deps ## the classifier against PostgreSQL's grammar and its regression suite
	cd router/oracle && go test $(TESTFLAGS) ./... && go test -run '^$$' -fuzz FuzzReadHasNoWrite -fuzztime 30s .

unit: ## without the end-to-end tests
	go test -race $(TESTFLAGS) $$(go list ./... | grep -v /e2e$$)

e2e: deps build ## the product's binary, in front of real servers and on several hosts
	CST_E2E=all CST_BINARY=$(CURDIR)/$(BIN) go test -count=1 -p 1 -v -timeout 120m $(TESTFLAGS) ./cmd/cstproxy/e2e ./ha/e2e

rto: deps build ## how long clients cannot write: RUNS of each event (KEEP=1: what is missing); RTO=^TestRTO measures Patroni, too
	@mkdir -p bin && { [ -n "$(KEEP)" ] || rm -f bin/rto.jsonl; }
	CST_BINARY=$(CURDIR)/$(BIN) CST_RTO=$(RUNS) CST_RTO_EVENTS='$(EVENTS)' CST_RTO_OUT=$(CURDIR)/bin/rto.jsonl \
		go test -count=1 -v -timeout 48h -run '$(RTO)' ./ha/e2e; ended=$$?; \
		go run ./bench/rto -svg bin/rto.svg bin/rto.jsonl >bin/rto.md && cat bin/rto.md && exit $$ended

soak: deps ## the long ones: minutes of load, 5,000 clients, gigabytes
	CST_LONG=1 go test -count=1 -v -timeout 90m ./cmd/cstproxy/e2e

sim: ## failovers in a made-up world, CST_SIM_SEEDS of them
	CST_SIM_SEEDS=$${CST_SIM_SEEDS:-100000} go test -count=1 -v -timeout 300m -run 'TestSeeds$$' ./ha/sim

lint:
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
		[ -z "$$bad" ] || { echo "gofmt these:"; echo "$$bad"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go test -count=1 -run '^TestLaw' ./cmd/cstproxy/law

fuzz: ## FUZZTIME for each target
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench-quick: ## cstproxy, PgBouncer and a floor, interleaved; BENCH='-rounds 9'
	@scripts/install-deps bench
	@$(MAKE) --no-print-directory build
	go run ./bench -cstproxy $(BIN) $(BENCH)

clean:
	rm -rf bin
	go clean -testcache
