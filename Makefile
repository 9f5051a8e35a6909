# The targets for a clone of rgate. `make` lists them.

CADDY_VERSION := v2.11.9
PORT          ?=
FUZZTIME      ?= 60s
TEST_TIMEOUT  ?= 20m
COVER         := cover
IMAGE         ?= rgate:latest

.DEFAULT_GOAL := help
.PHONY: help build caddy engine demo-image test cover lint rows words fuzz bench bench-routing bench-balance cache-tests chaos dashboard-images demo demo-bandwidth demo-down image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/rgate, the stand-alone gateway
	go build -o bin/rgate ./cmd/rgate

caddy: ## bin/caddy, a stock Caddy with rgate in it, made by xcaddy
	go tool xcaddy build $(CADDY_VERSION) --output bin/caddy --with github.com/rgate/rgate@v0.0.0=.

engine: ## start a Docker engine unless one runs (Debian, root)
	@hack/docker-engine

demo-image: engine ## the container image of the demo's backend
	@hack/image

test: demo-image ## every test, with real containers and the race detector
	@hack/need gcc gcc libc6-dev
	@hack/need redis-server redis-server
	@hack/need chromium chromium fonts-dejavu-core
	@hack/need pg_createcluster postgresql
	go test -race -timeout $(TEST_TIMEOUT) ./...

cover: demo-image ## coverage per package, whole gateways in processes of their own included
	@hack/need redis-server redis-server
	@hack/need chromium chromium fonts-dejavu-core
	@hack/need pg_createcluster postgresql
	@hack/cover $(COVER)

lint: ## format, vet, staticcheck, a test for each promise on the wire, the words' budget
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted (run gofmt -w .):" $$unformatted; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	@hack/rows
	@hack/words

rows: ## the promises on the wire that no test holds
	@hack/rows

words: ## lines of Go and docs that contain words with a better one in this field
	@hack/words

cache-tests: build ## the cache through the public suite of tests for HTTP caches (from npm)
	@hack/need node nodejs
	@hack/need npm npm
	@hack/cache-tests/run bin/rgate

dashboard-images: ## the pictures of the dashboard in docs/images, anew
	@hack/need chromium chromium fonts-dejavu-core
	go test ./dashboard -run TestInBrowser$$ -update

fuzz: ## every fuzz target for FUZZTIME (60s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func / /' | while read -r file target; do \
		echo "$$target in $$(dirname $$file) for $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" || exit 1; done

bench: build demo-image ## micro-benchmarks and the whole gateway beside its peers, in Markdown
	@hack/need wrk wrk
	@hack/need nginx nginx
	@hack/need haproxy haproxy
	@go run ./hack/bench $(BENCHFLAGS)

bench-routing: ## finding a route among 100 to 1,000,000, beside a list and Caddy's own routes
	@go test -run '^$$' -bench 'BenchmarkRout' -benchmem ./gateway

bench-balance: ## ring_hash and least_latency beside Caddy's policies, in Markdown
	@go run ./hack/bench-balance $(BENCHFLAGS)

demo: build demo-image ## containers, the gateway and two thousand requests, checked as they go (PORT=8080)
	@go run ./demo/run $(if $(PORT),-port $(PORT))

chaos: build demo-image ## kill and revive six containers in turn under load, and count what is lost
	@go run ./demo/chaos

demo-bandwidth: build demo-image ## rgate and a mock Kong count bytes; REST and rgate usage show them, checked as they go
	@go run ./demo/bandwidth

demo-down: ## remove what the demo left running
	@go run ./demo/run -down

image: engine ## the container image of rgate, from a static binary, without a pull
	GOOS=linux GOARCH=$$(docker version --format '{{.Server.Arch}}') CGO_ENABLED=0 \
		go build -trimpath -ldflags='-s -w' -o bin/image/rgate ./cmd/rgate
	docker build --target local --tag $(IMAGE) .

clean: ## remove what was built
	rm -rf bin $(COVER)
