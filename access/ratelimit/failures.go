package ratelimit

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
)

// failureGate is the part of a RateLimit that runs before authentication. It rejects
// requests above the limit and counts requests that authentication rejects with 401.
// These never reach the RateLimit handler.
type failureGate struct{ *RateLimit }

// PreAuthHandler implements policy.PreAuthModule. Only limits by client address have a
// gate. With other keys, a client with invalid credentials could exhaust the limits of
// other clients.
func (p *RateLimit) PreAuthHandler() caddyhttp.MiddlewareHandler {
	if p.Off() || p.ignoresFailures || !goesByAddress(p.Key) {
		return nil
	}
	p.reachedVar = "rgate.rate_limit_reached " + p.identity
	return failureGate{p}
}

// goesByAddress reports whether a key contains the client address and no placeholder that
// depends on authentication.
func goesByAddress(key string) bool {
	names := placeholder.Names(key)
	return slices.ContainsFunc(names, func(name string) bool {
		return "{"+name+"}" == placeholder.ClientIP || strings.HasPrefix(name, "http.request.remote")
	}) && !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "http.auth.") })
}

// ServeHTTP rejects a request above the limit and counts it if authentication rejects it.
func (g failureGate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	p := g.RateLimit
	key, text, cost := p.hash(r, p.local.hasher, &p.spaces), "", p.costOf(r)
	if p.redis != nil {
		text = p.text(r)
	}
	if d := p.peek(key, text, cost); !d.admitted {
		if !p.HideHeaders {
			setHeaders(w.Header(), &d, p.textOf(d.limit))
		}
		return p.refuse(w, r, d)
	}
	watch := failureWatches.Get().(*failureWatch)
	watch.ResponseWriter = w
	caddyhttp.SetVar(r.Context(), p.reachedVar, watch)
	err := next.ServeHTTP(watch, r)
	caddyhttp.SetVar(r.Context(), p.reachedVar, nil)
	status := watch.status
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) {
		status = failed.StatusCode
	}
	if status == http.StatusUnauthorized && !watch.reached {
		p.countFailure(key, text, cost)
	}
	if !watch.hijacked { // the connection may still use the writer
		*watch = failureWatch{}
		failureWatches.Put(watch)
	}
	return err
}

// peek checks a request before authentication without counting it. It queries Redis only
// for keys with failures, so that other requests query Redis once.
func (p *RateLimit) peek(key uint64, text string, cost int64) decision {
	now := monotime.Now()
	if p.redis != nil {
		if p.local.peek(now, p.failureKey(key), 1, limit{1, p.longest()}).admitted {
			return decision{admitted: true}
		}
		if d, ok := p.redis.peek(time.Duration(p.RedisTimeout), text, cost, p.limits); ok {
			return d
		}
	}
	return p.local.peek(now, key, cost, p.limits...)
}

// countFailure counts a request that authentication rejected.
func (p *RateLimit) countFailure(key uint64, text string, cost int64) {
	if p.redis != nil {
		p.local.add(monotime.Now(), p.failureKey(key), 1, limit{1, p.longest()})
	}
	p.countKey(key, func() string { return text }, cost)
}

// failureKey returns the key of the marker for a key with failures.
func (p *RateLimit) failureKey(key uint64) uint64 { return mix(key, 1) }

// longest returns the longest window of all limits.
func (p *RateLimit) longest() (window time.Duration) {
	for _, l := range p.limits {
		window = max(window, l.window)
	}
	return window
}

// Warnings implements policy.Warner.
func (p *RateLimit) Warnings(chain []caddyhttp.MiddlewareHandler) []string {
	if !slices.Contains(chain, caddyhttp.MiddlewareHandler(failureGate{p})) {
		return nil
	}
	return []string{"failed authentications count against a rate_limit whose key is the client's address, unlike in earlier versions: " +
		"set legacy: [" + policy.LegacyUncountedFailures + "] if they must not count"}
}

// failureWatch is a response writer that records the status code and whether the request
// reached the RateLimit handler.
type failureWatch struct {
	caddyhttp.ResponseWriterWrapper
	status            int
	reached, hijacked bool
}

var failureWatches = sync.Pool{New: func() any { return new(failureWatch) }}

func (w *failureWatch) WriteHeader(status int) {
	if w.status < http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Hijack implements http.Hijacker.
func (w *failureWatch) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, buf, err
}

// Interface guards
var (
	_ policy.PreAuthModule = (*RateLimit)(nil)
	_ policy.Warner        = (*RateLimit)(nil)
	_ http.Hijacker        = (*failureWatch)(nil)
)
