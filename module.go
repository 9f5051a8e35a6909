// Package rgate is an API gateway for Docker, built from Caddy modules. It discovers
// backends by the labels of their containers, routes requests to them by path, and
// records statistics.
//
// Importing this package registers all modules with Caddy:
//
//	xcaddy build --with github.com/rgate/rgate
//
// The packages can be used independently:
//
//   - dockerupstreams discovers containers: `dynamic docker_labels` in any reverse_proxy.
//   - balance selects upstreams: `lb_policy ring_hash` and `lb_policy least_latency`.
//   - access/* control access: `rgate_jwt`, `rgate_api_key`, `rgate_require`, `rgate_ip_filter`, `rgate_rate_limit`, `rgate_throttle`, `rgate_cors`, `rgate_security`, `rgate_request_id`.
//   - traffic/* manage traffic: `rgate_transform`, `rgate_cache`, `rgate_coalesce`, `rgate_fallback`, `rgate_circuit_breaker`, `rgate_concurrency`.
//   - gateway routes requests: `rgate`.
//   - stats records statistics: `rgate_stats`.
//   - dashboard serves a page with statistics and charts: `rgate_dashboard`.
//   - bandwidth records usage and enforces quotas: `rgate_bandwidth`, `rgate_quota`, `rgate_notify`.
//   - caddyfile adapts rgate's YAML: `--adapter rgate`.
//   - cli runs a gateway from a YAML file: `caddy rgate -c rgate.yaml -p 8080`.
package rgate

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	_ "github.com/rgate/rgate/access/apikey"
	_ "github.com/rgate/rgate/access/cors"
	_ "github.com/rgate/rgate/access/ipfilter"
	_ "github.com/rgate/rgate/access/jwt"
	_ "github.com/rgate/rgate/access/ratelimit"
	_ "github.com/rgate/rgate/access/requestid"
	_ "github.com/rgate/rgate/access/require"
	_ "github.com/rgate/rgate/access/security"
	_ "github.com/rgate/rgate/balance"
	_ "github.com/rgate/rgate/bandwidth"
	_ "github.com/rgate/rgate/caddyfile"
	_ "github.com/rgate/rgate/cli"
	_ "github.com/rgate/rgate/dashboard"
	_ "github.com/rgate/rgate/dockerupstreams"
	_ "github.com/rgate/rgate/gateway"
	_ "github.com/rgate/rgate/stats"
	_ "github.com/rgate/rgate/traffic/cache"
	_ "github.com/rgate/rgate/traffic/circuitbreaker"
	_ "github.com/rgate/rgate/traffic/coalesce"
	_ "github.com/rgate/rgate/traffic/concurrency"
	_ "github.com/rgate/rgate/traffic/fallback"
	_ "github.com/rgate/rgate/traffic/transform"
)

// The order of rgate's directives. All calls are in one place because the order of
// calls determines the order of directives that are registered before the same
// directive.
func init() {
	// Endpoints come before rgate_stats, so that requests for them are not counted.
	httpcaddyfile.RegisterDirectiveOrder("rgate_notify", httpcaddyfile.Before, "header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_bandwidth", httpcaddyfile.Before, "header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_dashboard", httpcaddyfile.Before, "header")
	// Statistics cover all following directives.
	httpcaddyfile.RegisterDirectiveOrder("rgate_stats", httpcaddyfile.Before, "header")
	// Policies, in the order of package policy.
	httpcaddyfile.RegisterDirectiveOrder("rgate_request_id", httpcaddyfile.Before, "header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_cors", httpcaddyfile.Before, "header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_security", httpcaddyfile.Before, "header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_ip_filter", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("rgate_jwt", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("rgate_api_key", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("rgate_require", httpcaddyfile.Before, "request_header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_quota", httpcaddyfile.Before, "request_header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_rate_limit", httpcaddyfile.Before, "request_header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_throttle", httpcaddyfile.Before, "request_header")
	httpcaddyfile.RegisterDirectiveOrder("rgate_transform", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirectiveOrder("rgate_fallback", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirectiveOrder("rgate_cache", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirectiveOrder("rgate_coalesce", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirectiveOrder("rgate_concurrency", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirectiveOrder("rgate_circuit_breaker", httpcaddyfile.Before, "reverse_proxy")
	// The gateway is a terminal handler, like reverse_proxy.
	httpcaddyfile.RegisterDirectiveOrder("rgate", httpcaddyfile.Before, "reverse_proxy")
}
