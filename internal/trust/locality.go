package trust

import (
	"errors"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/entry"
)

// Locality decides whether the address of a request's peer says where the request comes
// from. It does not for a request that has passed a proxy which is not trusted, nor for
// one that a page of another site has a browser send: by a name of that site which its
// DNS has turned into the address of the gateway.
type Locality struct {
	hosts  []caddyhttp.MatchHost // names that are configured
	logger *zap.Logger

	warnedRelayed, warnedHost atomic.Bool
}

var (
	errRelayed = errors.New("the request has passed a proxy that is not trusted")
	errHost    = errors.New("the host of the request is not configured")
)

// namer is a module whose configuration names hosts.
type namer interface{ HostNames() []string }

// NewLocality collects the names that are configured: those given, and those of the
// gateway, the sites and the routes around the module that is being provisioned.
func NewLocality(ctx caddy.Context, names []string) *Locality {
	l := &Locality{logger: ctx.Logger()}
	if name, err := os.Hostname(); err == nil {
		names = append(slices.Clip(names), name)
	}
	for _, module := range ctx.Modules() {
		switch module := module.(type) {
		case namer:
			names = append(slices.Clip(names), module.HostNames()...)
		case *caddyhttp.App:
			for _, server := range module.Servers {
				l.addRoutes(entry.Routes(server))
			}
		case *caddyhttp.Subroute:
			l.addRoutes(module.Routes)
		}
	}
	// Not provisioned, and so not sorted: it must stay small.
	for chunk := range slices.Chunk(names, 100) {
		l.hosts = append(l.hosts, chunk)
	}
	return l
}

// addRoutes adds the hosts that routes match.
func (l *Locality) addRoutes(routes caddyhttp.RouteList) {
	for _, route := range routes {
		for _, set := range route.MatcherSets {
			for _, matcher := range set {
				if hosts, ok := matcher.(*caddyhttp.MatchHost); ok {
					l.hosts = append(l.hosts, *hosts)
				}
			}
		}
	}
}

// Check reports why the address of the peer does not count.
func (l *Locality) Check(r *http.Request) error {
	if IsRelayed(r) {
		if l.warnedRelayed.CompareAndSwap(false, true) {
			l.logger.Warn("refused a request that has passed a proxy which is not trusted: its client is not known",
				zap.String("path", r.URL.Path), zap.String("peer", r.RemoteAddr),
				zap.String("remedy", "add the proxy to trusted_proxies of the server"))
		}
		return errRelayed
	}
	if host := ForwardedOf(r).Host; !l.isOwn(r, host) {
		if l.warnedHost.CompareAndSwap(false, true) {
			l.logger.Warn("refused a request for a host that is not configured",
				zap.String("path", r.URL.Path), zap.String("host", host),
				zap.String("remedy", "add the name to hosts beside allow, or use an address"))
		}
		return errHost
	}
	return nil
}

// isOwn reports whether a host is an address, localhost or a name that is configured. A
// browser always sends a host.
func (l *Locality) isOwn(r *http.Request, host string) bool {
	name, _ := splitPort(host)
	if _, err := netip.ParseAddr(name); err == nil || host == "" ||
		strings.EqualFold(name, "localhost") || strings.HasSuffix(strings.ToLower(name), ".localhost") {
		return true
	}
	asked := *r
	asked.Host = host
	return slices.ContainsFunc(l.hosts, func(hosts caddyhttp.MatchHost) bool {
		matches, err := hosts.MatchWithError(&asked)
		return err == nil && matches
	})
}

// HasAllAddresses reports whether a list of ranges has all addresses of a family in it, so that
// it does not tell local clients from others.
func HasAllAddresses(ranges []string) bool {
	return slices.Contains(ranges, "0.0.0.0/0") || slices.Contains(ranges, "::/0")
}
