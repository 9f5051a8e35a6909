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

// Locality rejects requests for which the address of the peer does not identify the
// client. Such a request has passed an untrusted proxy, or is part of a DNS rebinding
// attack: a page makes a browser send it to a host name that resolves to the gateway.
type Locality struct {
	hosts  []caddyhttp.MatchHost // configured host names
	logger *zap.Logger

	warnedRelayed, warnedHost atomic.Bool
}

var (
	errRelayed = errors.New("the request passed an untrusted proxy")
	errHost    = errors.New("the host of the request is not configured")
)

// hostNamer is a module whose configuration contains host names.
type hostNamer interface{ HostNames() []string }

// NewLocality returns a Locality that accepts the given host names, the name of the
// machine, and the names of the gateway, sites and routes in the configuration.
func NewLocality(ctx caddy.Context, names []string) *Locality {
	l := &Locality{logger: ctx.Logger()}
	if name, err := os.Hostname(); err == nil {
		names = append(slices.Clip(names), name)
	}
	for _, module := range ctx.Modules() {
		switch module := module.(type) {
		case hostNamer:
			names = append(slices.Clip(names), module.HostNames()...)
		case *caddyhttp.App:
			for _, server := range module.Servers {
				l.addRoutes(entry.Routes(server))
			}
		case *caddyhttp.Subroute:
			l.addRoutes(module.Routes)
		}
	}
	// A matcher that is not provisioned is unsorted and must be small.
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

// Check returns an error if the request was relayed or its host is not configured.
func (l *Locality) Check(r *http.Request) error {
	if isRelayed(r) {
		if l.warnedRelayed.CompareAndSwap(false, true) {
			l.logger.Warn("rejected a request that passed an untrusted proxy: the client address is unknown",
				zap.String("path", r.URL.Path), zap.String("peer", r.RemoteAddr),
				zap.String("remedy", "add the proxy to trusted_proxies of the server"))
		}
		return errRelayed
	}
	if host := ForwardedOf(r).Host; !l.isOwn(r, host) {
		if l.warnedHost.CompareAndSwap(false, true) {
			l.logger.Warn("rejected a request for a host that is not configured",
				zap.String("path", r.URL.Path), zap.String("host", host),
				zap.String("remedy", "add the host to hosts next to allow, or use an IP address"))
		}
		return errHost
	}
	return nil
}

// isOwn reports whether a host is an IP address, localhost or a configured name.
// Browsers always send a host.
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

// HasAllAddresses reports whether a list of CIDR ranges contains all addresses of a
// family.
func HasAllAddresses(ranges []string) bool {
	return slices.Contains(ranges, "0.0.0.0/0") || slices.Contains(ranges, "::/0")
}
