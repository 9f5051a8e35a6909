package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/gateway/upstream"
)

// provision starts the backend's service and loads the handlers around it.
func (b *Backend) provision(ctx caddy.Context, g *Gateway) (err error) {
	options := upstream.Options{
		Name: b.Name, Dial: b.Dial, Scheme: b.Scheme, Proxy: b.ProxyRaw, LBPolicy: b.LBPolicyRaw,
		Retries: b.Retries, RetryBudget: (*upstream.RetryBudget)(b.RetryBudget), Limits: b.Timeouts.limits(), Upgrades: b.Upgrades,
		UseEnvironmentProxy: g.restores(legacyEnvironmentProxy),
		UseContainerHost:    g.restores(legacyContainerHost),
		IgnoreFailedDials:   g.restores(legacyFailedDials),
		AllowLocalAddresses: b.AllowsLocalAddresses(),
		StreamCloseDelay:    g.StreamCloseDelay,
		OnDroppedUpgrade: func(r *http.Request, protocol string) {
			g.logDropped(protocol, requestStateOf(r).route.name, b.Name)
		},
	}
	if b.Register {
		options.Registered = func() []string { return g.registry.Dials(b.Name) }
	}
	if b.MatchLabels != nil {
		if options.Containers, err = dockerupstreams.Subscribe(g.Docker, b.Selector, ctx.Logger()); err != nil {
			return fmt.Errorf("subscribing to the containers of backend %s: %w", b.Name, err)
		}
	}
	if b.service, err = upstream.New(ctx, options); err != nil {
		return err
	}
	if b.around, err = loadHandlers(ctx, b, "AroundRaw", b.AroundRaw); err != nil {
		return fmt.Errorf("loading the handlers of backend %s: %w", b.Name, err)
	}
	b.standalone = b.buildStandalone(g.order())
	return nil
}

// release stops the backend's service, if it was started.
func (b *Backend) release() error {
	if b.service == nil {
		return nil
	}
	return b.service.Close()
}

// withTimeout is a middleware that applies the total time limit of the route, or of the
// backend if the route sets none.
func (b *Backend) withTimeout(route *Timeouts, next caddyhttp.Handler) caddyhttp.Handler {
	return upstream.WithTimeout(cmp.Or(route.total(), b.Timeouts.total()), next)
}

func (t *Timeouts) total() time.Duration {
	if t == nil {
		return 0
	}
	return time.Duration(t.Total)
}

// limits returns the time limits that the transport applies.
func (t *Timeouts) limits() upstream.Limits {
	if t == nil {
		return upstream.Limits{}
	}
	return upstream.Limits{Dial: t.Dial, FirstByte: t.FirstByte}
}
