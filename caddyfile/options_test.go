package caddyfile

import (
	"strings"
	"testing"
)

// What is wrong with the options of a policy is told with the line, the option and what
// would be right.
func TestWrongOptions(t *testing.T) {
	for policy, want := range map[string]string{
		"throttle: {requests: 1, window: 1s, queue: 0}":         "queue cannot be 0: use a value above that, or leave it out for the default, 100",
		"throttle: {requests: 1, window: 1s, burst: 0}":         "burst cannot be 0",
		"throttle: {requests: 1, window: 1s, ipv6_prefix: 0}":   "ipv6_prefix cannot be 0",
		"rate_limit: {requests: 1, window: 1s, ipv6_prefix: 0}": "ipv6_prefix cannot be 0: use a value above that, or leave it out for the default, 64",
		"circuit_breaker: {failures: 0}":                        "failures cannot be 0",
		"circuit_breaker: 0":                                    "failures cannot be 0",
		"circuit_breaker: {recovery: 0s}":                       "recovery cannot be 0s: use a value above that, or leave it out for the default, 60s",
		"circuit_breaker: {probes: 0}":                          "probes cannot be 0",
		"circuit_breaker: {statuses: []}":                       "statuses cannot be empty: give it a value, or leave it out for the default, 5xx",
		"concurrency: {max: 1, queue: 1, queue_timeout: 0s}":    "queue_timeout cannot be 0s",
		"coalesce: {max_buffer: 0}":                             "max_buffer cannot be 0",
	} {
		_, err := adapt("routes:\n  - path_prefix: /\n    backend: a\n    " + policy + "\nbackends:\n  - name: a\n    dial: [\"127.0.0.1:1\"]\n")
		if err == nil || !strings.HasPrefix(err.Error(), "rgate.yaml:4: "+want) {
			t.Errorf("%s\ngot  %v\nwant %s", policy, err, want)
		}
	}
}
