package caddyfile

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The same gateway in YAML, JSON and a Caddyfile.
const (
	sameInYAML = `admin: off
access_log: true
grace_period: 1m
shutdown_delay: 5s
name: edge
docker:
  - host: tcp://10.0.0.7:2376
    cert_path: /etc/rgate/certs
    routed: [front]
    drain: 10m
    stop_signals: [SIGWINCH, usr1, 37]
    trust: 1h
stats: {path: /figures, allow: [192.0.2.0/24], hosts: [figures], interval: 30s, sinks: [{sink: json_lines, filename: /var/log/rgate.jsonl, roll_keep: 3}]}
operations:
  path: /ops
  allow: [private_ranges, 192.0.2.0/24]
  hosts: [gateway]
  registration: {ttl: 2m}
  handle:
    - handler: authentication
      providers:
        http_basic:
          accounts: [{username: alice, password: $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG}]
          hash: {algorithm: bcrypt}
          hash_cache: {}
default_response: {body: "not # here", status_code: 403}
trust_identity: true
keep_fields: [X-Forwarded-Prefix]
max_hops: 3
stream_close_delay: 5m
legacy: [handlers_before_authentication]
handle:
  - handler: headers
    response: {set: {X-Served-By: [rgate]}, deferred: true}
routes:
  - path_prefix: /api/payment
    name: pay
    match: segment
    methods: [GET, POST]
    hosts: [api.example.com, "*.example.org"]
    strip_prefix: true
    timeouts: {dial: 1s, first_byte: 5s, total: 30s}
    handle:
      - handler: subroute
        routes:
          - handle: [{handler: rgate_stats, path: /payment-figures, name: payment}]
          - match: [{path: [/api/payment/old*]}]
            handle: [{handler: static_response, status_code: 410}]
    backend: payment
  - path_prefix: /
    backend: legacy
  - path_prefix: /users/:id/*
    headers: {X-Api-Version: 2.0, Accept: ["*/json", "*+json*"], X-Old: null}
    query: {debug: true, version: ["2", "3"]}
    deprecated: {since: 2026-01-01, sunset: 2026-12-31, link: "https://example.com/changes"}
    sticky_key: "{http.rgate.param.id}"
    backends: [{name: payment, weight: 95}, {name: legacy, weight: 5}]
groups:
  - path_prefix: /v1
    hosts: [old.example.com]
    headers: {X-Api-Version: "1"}
    query: {version: "*"}
    deprecated: {}
    handle:
      - handler: headers
        response: {set: {X-Version: ["1"]}, deferred: true}
    routes:
      - {path_prefix: /orders, backend: legacy}
    groups:
      - path_prefix: /beta
        routes:
          - {backend: payment}
backends:
  - name: payment
    match_labels: [app_name=payment, env=production]
    register: true
    port: 8080
    network: front
    scheme: https
    health: any
    host_port: true
    include: [one_offs, build_steps]
    lb_policy: {policy: header, field: X-User, fallback: {policy: least_conn}}
    retries: 0
    upgrades: [websocket, ipp/2.0]
    retry_budget: {ratio: 0.1, min_per_second: 5}
    timeouts: {dial: 500ms, first_byte: 1m30s, total: 2h}
    proxy:
      flush_interval: -1ns
      transport: {protocol: http, tls: {insecure_skip_verify: true}}
    around:
      - {handler: encode, encodings: {gzip: {}}, prefer: [gzip]}
  - name: legacy
    dial: ["127.0.0.1:9001", "127.0.0.1:9002"]
`
	sameInCaddyfile = `{
	admin off
	grace_period 1m
	shutdown_delay 5s
	log {
		format filter {
			request>headers>X-Api-Key replace REDACTED
		}
	}
}

:8080 {
	log
	rgate {
		name edge
		docker tcp://10.0.0.7:2376 {
			cert_path /etc/rgate/certs
			routed front
			drain 10m
			stop_signals SIGWINCH USR1 37
			trust 1h
		}
		stats /figures {
			allow 192.0.2.0/24
			hosts figures
			interval 30s
			sink json_lines /var/log/rgate.jsonl {
				roll_keep 3
			}
		}
		operations /ops {
			hosts gateway
			allow private_ranges
			allow 192.0.2.0/24
			registration 2m
			basic_auth {
				alice $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
			}
		}
		default_response "not # here" 403
		trust_identity
		keep_fields X-Forwarded-Prefix
		max_hops 3
		stream_close_delay 5m
		legacy handlers_before_authentication
		header >X-Served-By rgate
		@old path /api/payment/old*

		backend payment {
			match_labels app_name=payment
			match_labels env=production
			register
			port 8080
			network front
			scheme https
			health any
			host_port
			include one_offs build_steps
			lb_policy header X-User {
				fallback least_conn
			}
			retries 0
			upgrades websocket ipp/2.0
			retry_budget 0.1 5
			timeouts {
				dial 500ms
				first_byte 1m30s
				total 2h
			}
			proxy {
				flush_interval -1
				transport http {
					tls_insecure_skip_verify
				}
			}
			around {
				encode gzip
			}
		}
		backend legacy {
			dial 127.0.0.1:9001 127.0.0.1:9002
		}

		route /api/payment payment {
			name pay
			match segment
			methods GET POST
			hosts api.example.com
			hosts *.example.org
			strip_prefix
			timeouts {
				dial 1s
				first_byte 5s
				total 30s
			}
			stats /payment-figures {
				name payment
			}
			respond @old 410
		}
		route / legacy
		route /users/:id/* {
			headers X-Api-Version 2.0
			headers Accept */json
			headers Accept *+json*
			headers !X-Old
			query debug=true version=2
			query version=3
			deprecated {
				since 2026-01-01
				sunset 2026-12-31
				link https://example.com/changes
			}
			sticky_key {http.rgate.param.id}
			backends {
				payment 95
				legacy 5
			}
		}
		group /v1 {
			hosts old.example.com
			headers X-Api-Version 1
			query version=*
			deprecated
			header >X-Version 1
			route /orders legacy
			group /beta {
				route payment
			}
		}
	}
}
`
	sameInJSON = `{"admin": {"disabled": true}, "logging": {"logs": {"default": {"encoder": {"format": "filter",
	"fields": {"request>headers>X-Api-Key": {"filter": "replace", "value": "REDACTED"}}}}}}, "apps": {"http": {
	"grace_period": 60000000000, "shutdown_delay": 5000000000, "servers": {"srv0": {
	"listen": [":8080"],
	"logs": {},
	"routes": [{"handle": [{
		"handler": "rgate",
		"name": "edge",
		"docker": [{"host": "tcp://10.0.0.7:2376", "cert_path": "/etc/rgate/certs", "routed": ["front"],
			"drain": 600000000000, "stop_signals": ["SIGWINCH", "SIGUSR1", "37"], "trust": 3600000000000}],
		"stats": {"path": "/figures", "allow": ["192.0.2.0/24"], "hosts": ["figures"], "interval": 30000000000,
			"sinks": [{"sink": "json_lines", "filename": "/var/log/rgate.jsonl", "roll_keep": 3}]},
		"operations": {"path": "/ops", "allow": ["private_ranges", "192.0.2.0/24"], "hosts": ["gateway"],
			"registration": {"ttl": 120000000000},
			"handle": [{"handler": "authentication", "providers": {"http_basic": {
				"accounts": [{"username": "alice", "password": "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"}],
				"hash": {"algorithm": "bcrypt"}, "hash_cache": {}}}}]},
		"default_response": {"body": "not # here", "status_code": 403},
		"trust_identity": true,
		"keep_fields": ["X-Forwarded-Prefix"],
		"max_hops": 3,
		"stream_close_delay": 300000000000,
		"legacy": ["handlers_before_authentication"],
		"handle": [{"handler": "headers", "response": {"deferred": true, "set": {"X-Served-By": ["rgate"]}}}],
		"routes": [
			{
				"path_prefix": "/api/payment", "name": "pay", "match": "segment", "methods": ["GET", "POST"],
				"hosts": ["api.example.com", "*.example.org"], "strip_prefix": true, "backend": "payment",
				"timeouts": {"dial": 1000000000, "first_byte": 5000000000, "total": 30000000000},
				"handle": [
					{"handler": "subroute", "routes": [
						{"handle": [{"handler": "rgate_stats", "path": "/payment-figures", "name": "payment"}]},
						{"match": [{"path": ["/api/payment/old*"]}], "handle": [{"handler": "static_response", "status_code": 410}]}
					]}
				]
			},
			{"path_prefix": "/", "backend": "legacy"},
			{
				"path_prefix": "/users/:id/*",
				"headers": {"X-Api-Version": ["2.0"], "Accept": ["*/json", "*+json*"], "X-Old": null},
				"query": {"debug": ["true"], "version": ["2", "3"]},
				"deprecated": {"since": "2026-01-01", "sunset": "2026-12-31", "link": "https://example.com/changes"},
				"sticky_key": "{http.rgate.param.id}",
				"backends": [{"name": "payment", "weight": 95}, {"name": "legacy", "weight": 5}]
			}
		],
		"groups": [{
			"path_prefix": "/v1", "hosts": ["old.example.com"], "headers": {"X-Api-Version": ["1"]}, "query": {"version": ["*"]},
			"deprecated": {},
			"handle": [{"handler": "headers", "response": {"deferred": true, "set": {"X-Version": ["1"]}}}],
			"routes": [{"path_prefix": "/orders", "backend": "legacy"}],
			"groups": [{"path_prefix": "/beta", "routes": [{"path_prefix": "", "backend": "payment"}]}]
		}],
		"backends": [
			{
				"name": "payment", "match_labels": {"app_name": "payment", "env": "production"}, "register": true, "port": 8080,
				"network": "front", "scheme": "https", "health": "any", "host_port": true, "include": ["one_offs", "build_steps"],
				"lb_policy": {"policy": "header", "field": "X-User", "fallback": {"policy": "least_conn"}},
				"retries": 0, "upgrades": ["websocket", "ipp/2.0"], "retry_budget": {"ratio": 0.1, "min_per_second": 5}, "timeouts": {"dial": 500000000, "first_byte": 90000000000, "total": 7200000000000},
				"proxy": {"flush_interval": -1, "transport": {"protocol": "http", "tls": {"insecure_skip_verify": true}}},
				"around": [{"handler": "encode", "encodings": {"gzip": {}}, "prefer": ["gzip"]}]
			},
			{"name": "legacy", "dial": ["127.0.0.1:9001", "127.0.0.1:9002"]}
		]
	}]}]
}}}}}`
)

func TestThreeSyntaxesMeanTheSame(t *testing.T) {
	fromYAML, err := adapt(sameInYAML)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "YAML", string(fromYAML), sameInJSON)
	sameJSON(t, "Caddyfile", adaptCaddyfile(t, sameInCaddyfile), sameInJSON)
	decodeGateway(t, []byte(sameInJSON))
}

// The gateway above sets every option, so that a new option must be added in all
// syntaxes.
func TestThreeSyntaxesHaveEveryOption(t *testing.T) {
	g := decodeGateway(t, []byte(sameInJSON))
	unset := unsetFields(reflect.ValueOf(g).Elem(), "gateway")
	unset = slices.DeleteFunc(unset, func(option string) bool {
		// Nested routes and groups have the same types as the outer ones.
		return strings.HasPrefix(option, "gateway.groups[].routes[]") || strings.HasPrefix(option, "gateway.groups[].groups[]") ||
			strings.HasPrefix(option, "gateway.groups[].deprecated")
	})
	allowed := []string{"gateway.stats.disabled"} // cannot be combined with the path
	if !reflect.DeepEqual(unset, allowed) {
		t.Errorf("options that the test does not set: got %v, want %v", unset, allowed)
	}
}

// unsetFields returns the paths of fields with a JSON key that are zero. A field of
// list elements is unset if it is zero in all elements.
func unsetFields(v reflect.Value, path string) []string {
	v = reflect.Indirect(v)
	switch {
	case !v.IsValid():
		return []string{path}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8 && v.Type().Elem().Kind() != reflect.Slice && v.Len() > 0:
		counts := make(map[string]int)
		var all []string
		for i := range v.Len() {
			for _, name := range unsetFields(v.Index(i), path+"[]") {
				if counts[name]++; counts[name] == v.Len() {
					all = append(all, name)
				}
			}
		}
		return all
	case v.Kind() == reflect.Struct:
		var unset []string
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && f.IsExported():
				unset = append(unset, unsetFields(v.Field(i), path)...)
			case name == "" || name == "-":
			case v.Field(i).IsZero():
				unset = append(unset, path+"."+name)
			default:
				unset = append(unset, unsetFields(v.Field(i), path+"."+name)...)
			}
		}
		return unset
	}
	return nil
}
