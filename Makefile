# Campanile. `make` lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION     := v1.13.0
PROTOC_GEN_GO_VERSION := v1.36.12
PROTOC_GEN_VT_VERSION := v0.6.1-0.20240319094008-0393e58bdf10

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD   := CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)"
DATA    ?= build/demo
FUZZTIME ?= 30s
TOKENS  ?= 1000000

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z\/-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the binary into build/campanile
	$(BUILD) -o build/campanile ./cmd/campanile

.PHONY: run
run: build chdb ## run the whole pipeline with a demonstration, and keep serving (DATA=folder)
	build/campanile up --demo --data $(DATA)

.PHONY: chdb
chdb: ## fetch libchdb, the embedded ClickHouse engine, into build/chdb
	deployments/local/chdb.sh || echo "no libchdb: the pipeline runs without analytics"

.PHONY: engines-up
engines-up: build ## start Kafka, PostgreSQL and the ClickHouse engine on loopback
	deployments/local/cluster.sh engines

.PHONY: engines-down
engines-down: ## stop them
	deployments/local/cluster.sh engines-down

.PHONY: cluster-up
cluster-up: build ## start every stage as processes of its own on those engines, with a simulator
	deployments/local/cluster.sh up

.PHONY: cluster-down
cluster-down: ## stop the stages; the engines go on
	deployments/local/cluster.sh down

.PHONY: test
test: bin/gotestsum chdb build crdbcheck ## run every test with the race detector, on every engine that can be had
	deployments/local/test.sh

.PHONY: proofs
proofs: bin/gotestsum chdb build ## run the end-to-end proofs in full size, on the real engines too (ONLY=regexp for some; hours for all)
	CAMPANILE_PROOFS=1 CI=true bin/gotestsum --format standard-verbose -- -race -count 1 -timeout 12h -run '$(or $(ONLY),.)' ./cmd/campanile

.PHONY: short
short: ## run the tests that need no engine, without the race detector
	CAMPANILE_SKIP_REAL=1 go test -short ./...

.PHONY: crdbcheck
crdbcheck: ## parse every SQL statement with CockroachDB's own grammar
	cd projections/cockroach/crdbcheck && go test ./...

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@for target in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | sort); do \
	  for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' $$target); do \
	    echo "$$(dirname $$target) $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) ./$$(dirname $$target); done; done

.PHONY: chaos
chaos: build ## kill, stop and cut off every part under load on three brokers, and reconcile (about 25 min, as root; CHAOS='--seed 7')
	build/campanile chaos $(CHAOS)

.PHONY: faults
faults: ## push FAULT_PUSHES (1000000) through a sender under every fault of a provider, each alone and all mixed, and count into build/faults.json
	CAMPANILE_FAULT_PUSHES=$${FAULT_PUSHES:-1000000} CAMPANILE_FAULT_OUT=$(CURDIR)/build/faults.json go test -count=1 -v -timeout 6h -run 'TestNoFaultLosesAPush/$(ONLY)' ./bench

.PHONY: bench
bench: build ## measure, as ratios in one run, into build/bench.json (ONLY=regexp for a part)
	build/campanile bench --out build/bench.json --only '$(ONLY)'

.PHONY: explain
explain: ## print how PostgreSQL reads a page of an audience (EXPLAIN (ANALYZE, BUFFERS)); fails unless it is a scan of the key alone
	go test ./projections/cockroach -count 1 -v -run 'TestPagesAreRangeScans'

.PHONY: import-demo
import-demo: ## import an AirNotifier of TOKENS (1000000) records with every dirt, twice, and try every key
	IMPORT_TOKENS=$(TOKENS) go test ./cmd/campanile -run TestALargeAirNotifierMovesOver -v -count 1 -timeout 30m

.PHONY: golden
golden: ## write the golden files anew; review the change as one of the API
	go test ./schemas ./senders -update

.PHONY: generate
generate: bin/protoc-gen-go bin/protoc-gen-go-vtproto ## generate the events' Go code (needs protoc)
	schemas/generate.sh

.PHONY: generate-check
generate-check: bin/protoc-gen-go bin/protoc-gen-go-vtproto ## fail if the committed generated code is not what protoc makes
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && schemas/generate.sh "$$fresh" && \
	for f in "$$fresh"/push/v1/*.go; do \
	  diff <(sed '/^\/\/ .*protoc /d' "$$f") <(sed '/^\/\/ .*protoc /d' "schemas/push/v1/$$(basename $$f)") > /dev/null || { echo "$$(basename $$f) is stale: make generate"; exit 1; }; done

.PHONY: fmt
fmt: bin/golangci-lint ## format the code
	bin/golangci-lint fmt ./...

.PHONY: lint
lint: bin/golangci-lint ## lint the code
	bin/golangci-lint run ./...

.PHONY: tidy-check
tidy-check: ## fail if go.mod is not tidy
	go mod tidy -diff

.PHONY: check
check: lint tidy-check generate-check test ## what a commit passes

.PHONY: deployments-check
deployments-check: ## check the image, units, compose file and alert rules with the tools that are here
	deployments/check.sh

.PHONY: clean
clean: ## remove build/ (stop what runs there first)
	rm -rf build

bin/golangci-lint:
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
bin/gotestsum:
	GOBIN=$(CURDIR)/bin go install gotest.tools/gotestsum@$(GOTESTSUM_VERSION)
bin/protoc-gen-go:
	GOBIN=$(CURDIR)/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
bin/protoc-gen-go-vtproto:
	GOBIN=$(CURDIR)/bin go install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@$(PROTOC_GEN_VT_VERSION)
