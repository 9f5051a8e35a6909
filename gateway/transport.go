package gateway

import (
	"cmp"
	"fmt"
	"maps"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/options"
)

// limits are the time limits of a route that its backend's transport has to keep.
// Routes with the same ones share a transport, and with it its connections.
type limits struct{ dial, firstByte options.Timeout }

func (t *Timeouts) limits() limits {
	if t == nil {
		return limits{}
	}
	return limits{t.Dial, t.FirstByte}
}

// withoutLimit is the dial timeout of a backend that has none: Caddy takes 0 for its
// default, and package net takes a negative one for a deadline that has passed.
const withoutLimit = unlimited

// apply sets the limits among the options of Caddy's HTTP transport.
func (l limits) apply(transport proxyOptions) {
	if l.dial != 0 {
		transport.set("dial_timeout", cmp.Or(l.dial.Or(0), withoutLimit))
	}
	if l.firstByte != 0 {
		transport.set("response_header_timeout", l.firstByte.Or(0))
	}
}

// wrapTransport puts the gateway's own transport around Caddy's HTTP transport.
func (b *Backend) wrapTransport(ctx caddy.Context, options proxyOptions) error {
	inner := b.proxy.Transport
	outer, timed := inner.(clock)
	if timed {
		inner = outer.Unwrap()
	}
	base, ok := inner.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil
	}
	own, err := options.object("transport")
	if err != nil {
		return err
	}
	schemes, err := b.schemes(ctx, own)
	if err != nil {
		return err
	}
	patientDials(base)
	b.transport = &transport{speakers: speakers{base, schemes}, limited: make(map[limits]speakers)}
	b.proxy.Transport = b.transport
	if timed {
		b.proxy.Transport = outer.Around(b.transport)
	}
	return nil
}

// schemes loads a transport for each scheme that the backend's containers may say
// that they speak, if they may.
func (b *Backend) schemes(ctx caddy.Context, options proxyOptions) (map[string]*reverseproxy.HTTPTransport, error) {
	if b.containers == nil || b.Scheme != "" {
		return nil, nil
	}
	schemes := make(map[string]*reverseproxy.HTTPTransport, 2)
	for _, scheme := range []string{"https", "h2c"} {
		own := maps.Clone(options)
		own.speak(scheme)
		transport, err := loadTransport(ctx, own)
		if err != nil {
			return nil, err
		}
		schemes[scheme] = transport
	}
	return schemes, nil
}

func loadTransport(ctx caddy.Context, options proxyOptions) (*reverseproxy.HTTPTransport, error) {
	delete(options, "protocol")
	module, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", caddyconfig.JSON(options, nil))
	if err != nil {
		return nil, err
	}
	transport := module.(*reverseproxy.HTTPTransport)
	patientDials(transport)
	return transport, nil
}

// limit makes the backend able to keep the time limits of a route.
func (b *Backend) limit(ctx caddy.Context, within limits) error {
	if within == (limits{}) {
		return nil
	}
	if b.transport == nil {
		return fmt.Errorf("backend %s is not spoken to in HTTP: leave dial and first_byte out of the timeouts, and use total", b.Name)
	}
	if _, ok := b.transport.limited[within]; ok {
		return nil
	}
	options, err := b.proxyOptions()
	if err != nil {
		return err
	}
	own, err := options.object("transport")
	if err != nil {
		return err
	}
	within.apply(own)
	schemes, err := b.schemes(ctx, own)
	if err != nil {
		return err
	}
	base, err := loadTransport(ctx, own)
	if err != nil {
		return err
	}
	b.transport.limited[within] = speakers{base, schemes}
	return nil
}

const (
	defaultRetryRatio     = 0.2
	defaultRetryPerSecond = 10
)

// start makes the budget that the options stand for, if there are any.
func (o *RetryBudget) start() *budget {
	if o == nil {
		return nil
	}
	b := &budget{ratio: defaultRetryRatio, perSlice: defaultRetryPerSecond, now: monotime.Now}
	if o.Ratio != nil {
		b.ratio = *o.Ratio
	}
	if o.MinPerSecond != nil {
		b.perSlice = *o.MinPerSecond
	}
	return b
}
