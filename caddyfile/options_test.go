package caddyfile

import (
	"strings"
	"testing"
)

// Errors in the options of a policy contain the line, the option and the remedy.
func TestWrongOptions(t *testing.T) {
	for policy, want := range map[string]string{
		"throttle: {requests: 1, window: 1s, queue: 0}":                            "invalid queue 0: must be above 0: increase it, or remove it to use the default (100)",
		"throttle: {requests: 1, window: 1s, burst: 0}":                            "invalid burst 0: must be above 0",
		"throttle: {requests: 1, window: 1s, ipv6_prefix: 0}":                      "invalid ipv6_prefix 0: must be above 0",
		"rate_limit: {requests: 1, window: 1s, ipv6_prefix: 0}":                    "invalid ipv6_prefix 0: must be above 0: increase it, or remove it to use the default (64)",
		"circuit_breaker: {failures: 0}":                                           "invalid failures 0: must be above 0",
		"circuit_breaker: 0":                                                       "invalid failures 0: must be above 0",
		"circuit_breaker: {recovery: 0s}":                                          "invalid recovery 0s: must be above 0: increase it, or remove it to use the default (60s)",
		"circuit_breaker: {probes: 0}":                                             "invalid probes 0: must be above 0",
		"circuit_breaker: {statuses: []}":                                          "invalid statuses: must not be empty: add a value, or remove statuses to use the default (5xx)",
		"concurrency: {max: 1, queue: 1, queue_timeout: 0s}":                       "invalid queue_timeout 0s: must be above 0",
		"coalesce: {max_buffer: 0}":                                                "invalid max_buffer 0: must be above 0",
		"jwt: {algorithms: [RS256], public_key: garbage}":                          "invalid public_key: invalid PEM: must contain a block such as -----BEGIN PUBLIC KEY-----",
		"jwt: {algorithms: [RS256], jwks: {keys: []}}":                             "invalid jwks: no key to verify signatures with",
		"jwt: {algorithms: [RS256], discovery: true, issuer: foo}":                 `invalid issuer: "foo": must be a URL such as https://id.example.com`,
		"fallback: {cached: 1m, max_body: 1GiB}":                                   "invalid max_body 1073741824: must be at most 67108864, the value of max_bytes",
		`jwt: {algorithms: [RS256], jwks: {keys: [{kty: RSA, n: AQAB, e: AQAB}]}}`: "invalid jwks: no key to verify signatures with: key 1: RSA key of",
		"api_key: {keys: [{name: a, sha256: b, expires: 5}]}":                      "invalid routes[0].api_key.keys[0].expires: must be a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z",
		"concurrency: {max: -1}":                                                   "invalid max -1",
		"circuit_breaker: {failures: -1}":                                          "invalid failures -1",
		`cors: {allowed_origins: ["http://a.example.com:65536"]}`:                  `invalid origin "http://a.example.com:65536"`,
		`concurrency: {max: 1, key: "a{http.vars.x} {http.vars.y"}`:                "key \"a{http.vars.x} {http.vars.y\" has an unclosed placeholder",
	} {
		_, err := adapt("routes:\n  - path_prefix: /\n    backend: a\n    " + policy + "\nbackends:\n  - name: a\n    dial: [\"127.0.0.1:1\"]\n")
		if err == nil || !strings.HasPrefix(err.Error(), "rgate.yaml:4: "+want) {
			t.Errorf("%s\ngot  %v\nwant %s", policy, err, want)
		}
	}
}

func TestWrongRangesOfOperations(t *testing.T) {
	_, err := adapt("routes: []\nbackends: []\noperations:\n  path: /ops\n  allow: [10.0.0.0/8, foo]\n")
	if want := "rgate.yaml:5: "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), `"foo"`) {
		t.Errorf("got %v", err)
	}
}
