// Package rgate is an API gateway for Docker, made of Caddy modules. It finds
// backends by the labels of their containers, routes requests to them by path,
// and keeps count of what it did.
//
// Importing this package plugs all of it into Caddy:
//
//	xcaddy build --with github.com/rgate/rgate
//
// Each room of the house can be used alone:
//
//   - dockerupstreams finds containers: `dynamic docker_labels` in any reverse_proxy.
//   - balance chooses: `lb_policy ring_hash` and `lb_policy least_latency`.
//   - gateway routes: the `rgate` directive.
//   - stats records: the `rgate_stats` directive.
//   - caddyfile translates rgate's YAML: `--adapter rgate`.
//   - cli runs a gateway from a YAML file: `caddy rgate -c rgate.yaml -p 8080`.
package rgate

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	_ "github.com/rgate/rgate/balance"
	_ "github.com/rgate/rgate/caddyfile"
	_ "github.com/rgate/rgate/cli"
	_ "github.com/rgate/rgate/dockerupstreams"
	_ "github.com/rgate/rgate/gateway"
	_ "github.com/rgate/rgate/stats"
)

// The order of rgate's directives among Caddy's own. All of it stands here, since
// several directives before the same one stack in the order of these calls.
func init() {
	// Statistics see what every later directive answers.
	httpcaddyfile.RegisterDirectiveOrder("rgate_stats", httpcaddyfile.Before, "header")
	// The gateway answers everything that reaches it, like reverse_proxy.
	httpcaddyfile.RegisterDirectiveOrder("rgate", httpcaddyfile.Before, "reverse_proxy")
}
