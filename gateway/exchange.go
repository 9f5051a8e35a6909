package gateway

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/dockerupstreams"
)

// exchange is what the gateway knows of a request while it is under way. It is
// used by one goroutine at a time, and outlives the handler: access logs ask for
// placeholders after it.
type exchange struct {
	route *Route

	set   *dockerupstreams.Set // the containers that the last attempt chose from
	dial  string               // where the last attempt went
	tried []string             // where all attempts went

	// timedOut is set once an upstream had the request and did not answer in time:
	// no other one shall be kept busy with it.
	timedOut bool
}

const exchangeVar = "rgate.exchange"

// begin makes the exchange of a request known to what handles it further on.
func begin(ctx context.Context, route *Route) {
	ex := &exchange{route: route}
	caddyhttp.SetVar(ctx, exchangeVar, ex)
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(ex.placeholder)
	}
}

// exchangeOf returns the exchange of a request that came through a gateway.
func exchangeOf(r *http.Request) *exchange {
	ex, _ := caddyhttp.GetVar(r.Context(), exchangeVar).(*exchange)
	return ex
}

func (ex *exchange) placeholder(key string) (any, bool) {
	switch key {
	case "http.rgate.route":
		return ex.route.name, true
	case "http.rgate.backend":
		return ex.route.Backend, true
	case "http.rgate.container":
		if target := ex.target(); target != nil {
			return target.Container, true
		}
		return "", true
	}
	return nil, false
}

// target returns the container that the last attempt went to, or nil.
func (ex *exchange) target() *dockerupstreams.Target {
	if ex.set == nil || ex.dial == "" {
		return nil
	}
	return ex.set.ByDial(ex.dial)
}
