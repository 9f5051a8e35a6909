package bandwidth

import "github.com/caddyserver/caddy/v2"

// Source is another gateway that tells how many bytes it has served.
type Source struct {
	// What it is called in the account, in the place of a gateway.
	Name string `json:"name" caddyfile:"arg"`

	// Where its metrics are, in Prometheus' text format.
	URL string `json:"url"`

	// How often they are read. Default: `5s`.
	Interval caddy.Duration `json:"interval,omitempty"`
}
