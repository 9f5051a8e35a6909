package policy

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Prefix is the prefix of all policies' handler and directive names. Inside a gateway,
// the names have no prefix.
const Prefix = "rgate_"

// kind holds the properties of a handler that has a rank.
type kind struct {
	name string // handler name

	authorizes      bool // decides which requests are allowed
	authenticates   bool // identifies the client, or depends on the client's identity
	replacesBackend bool // responds with the response of another request or backend
	atBackend       bool // must be in front of a backend
	cumulative      bool // does not replace the same policy of an outer level

	// The options that contain names of secret header fields and parameters.
	secrets []secretOption
}

// kinds lists the handlers that have a rank, in the order in which they run.
var kinds = []kind{
	{name: "rgate_notify"},
	{name: "rgate_bandwidth"},
	{name: "rgate_dashboard"},
	{name: "rgate_request_id"},
	{name: "rgate_cors"},
	{name: "rgate_security"},
	{name: addressFilter, authorizes: true},
	{name: "rgate_jwt", authorizes: true, authenticates: true, secrets: []secretOption{{option: "token_from"}}},
	{name: "rgate_api_key", authorizes: true, authenticates: true, secrets: []secretOption{{option: "header", in: "header"}, {option: "query", in: "query"}}},
	{name: "authentication", authorizes: true, authenticates: true}, // Caddy's handler
	{name: "rgate_require", authorizes: true, authenticates: true},
	{name: "rgate_quota", cumulative: true},
	{name: "rgate_rate_limit"},
	{name: "rgate_throttle"},
	{name: "rgate_transform", atBackend: true},
	{name: "rgate_fallback", atBackend: true, replacesBackend: true},
	{name: "rgate_cache", atBackend: true, replacesBackend: true},
	{name: "rgate_coalesce", atBackend: true, replacesBackend: true},
	{name: "rgate_concurrency", atBackend: true},
	{name: "rgate_circuit_breaker", atBackend: true},
}

// addressFilter is the policy that protects endpoints.
const addressFilter = "rgate_ip_filter"

// kindOf returns the kind of a handler, or the zero value for a handler without a rank.
func kindOf(handler string) kind {
	if rank := Rank(handler); rank > 0 {
		return kinds[rank-1]
	}
	return kind{}
}

// Rank returns the position of a handler in the fixed order of policies, starting at 1.
// It returns 0 for other handlers.
func Rank(handler string) int {
	return 1 + slices.IndexFunc(kinds, func(k kind) bool { return k.name == handler })
}

// Authorizes reports whether a handler decides which requests are allowed.
func Authorizes(handler string) bool { return kindOf(handler).authorizes }

// Authenticates reports whether a handler identifies the client, or depends on the
// client's identity.
func Authenticates(handler string) bool { return kindOf(handler).authenticates }

// ReplacesBackend reports whether a handler responds with the response of another
// request or backend.
func ReplacesBackend(handler string) bool { return kindOf(handler).replacesBackend }

// Cumulative reports whether a handler runs in addition to the same policy of an outer
// level. Other policies replace those of outer levels.
func Cumulative(handler string) bool { return kindOf(handler).cumulative }

const namespace = "http.handlers"

// Lookup returns the policy with a name without prefix. Every handler that has the
// prefix and implements Module is a policy.
func Lookup(name string) (caddy.ModuleInfo, bool) {
	module, err := caddy.GetModule(namespace + "." + Prefix + name)
	if err != nil {
		return module, false
	}
	_, ok := module.New().(Module)
	return module, ok
}

// Names returns the names of all policies without prefix, in the order in which they
// run.
func Names() (names []string) {
	for _, module := range caddy.GetModules(namespace) {
		if name, ok := strings.CutPrefix(module.ID.Name(), Prefix); ok {
			if _, is := Lookup(name); is {
				names = append(names, name)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return Rank(Prefix+a) - Rank(Prefix+b) })
	return names
}
