# The targets for a clone of rgate. `make` lists them.

CADDY_VERSION := v2.11.9
PORT          ?=
FUZZTIME      ?= 60s
TEST_TIMEOUT  ?= 20m
COVER         := cover
IMAGE         ?= rgate:latest

.DEFAULT_GOAL := help
.PHONY: help build caddy engine demo-image unit test cover lint platforms rows words fuzz soak bench bench-routing bench-balance cache-tests chaos dashboard-images demo demo-bandwidth demo-down image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/rgate, the stand-alone gateway
	go build -o bin/rgate ./cmd/rgate

caddy: ## build bin/caddy, a stock Caddy with rgate, by xcaddy
	go tool xcaddy build $(CADDY_VERSION) --output bin/caddy --with github.com/rgate/rgate@v0.0.0=.

engine: ## start a Docker engine unless one runs (Debian, root)
	@hack/docker-engine

demo-image: engine ## build the container image of the demo's backend
	@hack/image

unit: ## the tests that need no Docker, services or network, in less than a minute
	go test -short ./...

test: demo-image ## all tests, with real containers and the race detector
	@hack/need gcc gcc libc6-dev
	@hack/need ip iproute2
	@hack/need redis-server redis-server
	@hack/need chromium chromium fonts-dejavu-core
	@hack/need pg_createcluster postgresql
	go test -race -timeout $(TEST_TIMEOUT) ./...

cover: demo-image ## coverage per package, including gateways in their own processes
	@hack/need redis-server redis-server
	@hack/need chromium chromium fonts-dejavu-core
	@hack/need pg_createcluster postgresql
	@hack/cover $(COVER)

lint: ## format, vet, staticcheck, all platforms, a test for each promise on the wire, the words' budget
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted (run gofmt -w .):" $$unformatted; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	@hack/platforms
	@hack/rows
	@hack/words

platforms: ## compile rgate for Linux, macOS and Windows, on 32 and 64 bits
	@hack/platforms

rows: ## list the promises on the wire without a test
	@hack/rows

words: ## count lines of Go and docs with words outside of the field's vocabulary
	@hack/words

cache-tests: build ## run the public test suite for HTTP caches (from npm)
	@hack/need node nodejs
	@hack/need npm npm
	@hack/cache-tests/run bin/rgate

dashboard-images: ## update the pictures of the dashboard in docs/images
	@hack/need chromium chromium fonts-dejavu-core
	go test ./dashboard -run TestInBrowser$$ -update

fuzz: ## every fuzz target for FUZZTIME (60s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func / /' | while read -r file target; do \
		echo "$$target in $$(dirname $$file) for $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" || exit 1; done

soak: demo-image ## a minute of random changes to containers and the engine under load
	@hack/need ip iproute2
	go test -race -timeout $(TEST_TIMEOUT) -run 'TestChaos$$' ./integration -v -args -chaos 60s

bench: build demo-image ## micro-benchmarks and comparison with other gateways, in Markdown
	@hack/need wrk wrk
	@hack/need nginx nginx
	@hack/need haproxy haproxy
	@go run ./hack/bench $(BENCHFLAGS)

bench-routing: ## benchmark of routing among 100 to 1,000,000 routes, compared with Caddy's
	@go test -run '^$$' -bench 'BenchmarkRout' -benchmem ./gateway/...

bench-balance: ## ring_hash and least_latency compared with Caddy's policies, in Markdown
	@go run ./hack/bench-balance $(BENCHFLAGS)

demo: build demo-image ## run the demo: containers, the gateway and 2000 checked requests (PORT=8080)
	@go run ./demo/run $(if $(PORT),-port $(PORT))

chaos: build demo-image ## kill and restart six containers under load, and count lost requests
	@go run ./demo/chaos

demo-bandwidth: build demo-image ## run the bandwidth demo: rgate and a mock Kong count bytes, with checks
	@go run ./demo/bandwidth

demo-down: ## remove the demo's gateway and containers
	@go run ./demo/run -down

image: engine ## build the container image of rgate from a static binary, without a pull
	GOOS=linux GOARCH=$$(docker version --format '{{.Server.Arch}}') CGO_ENABLED=0 \
		go build -trimpath -ldflags='-s -w' -o bin/image/rgate ./cmd/rgate
	docker build --target local --tag $(IMAGE) .

clean: ## remove build output
	rm -rf bin $(COVER)
