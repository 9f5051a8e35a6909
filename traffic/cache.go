package traffic

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

func init() {
	caddy.RegisterModule(new(Cache))
	httpcaddyfile.RegisterHandlerDirective("rgate_cache", policy.Directive[Cache])
}

// Cache answers GET and HEAD requests from memory where RFC 9111 lets a shared cache
// do so, and stores the answers of backends for that. What an answer says in
// `Cache-Control` and `Expires` decides; `ttl` is for those that say nothing.
//
// The field `Cache-Status` (RFC 9211) says what became of a request. Answers may name
// tags in `Cache-Tag` or `Surrogate-Key`, by which the admin API can purge them.
type Cache struct {
	policy.Base

	// How long answers are fresh that do not say whether they may be stored, such as
	// `30s`. They are stored for requests without credentials and cookies only, and
	// only given to such. Default: 0, they are not stored.
	TTL caddy.Duration `json:"ttl,omitempty" caddyfile:"arg"`

	// How much memory the answers of a gateway may take, with all that belongs to them,
	// from 64KiB on. All caches of a gateway share it; the largest number counts.
	// Default: 64MiB.
	MaxBytes policy.Size `json:"max_bytes,omitempty" default:"64MiB"`

	// How large the body of an answer may be to be stored: at most a quarter of
	// `max_bytes`. Default: 1MiB, or that quarter if it is less.
	MaxBody policy.Size `json:"max_body,omitempty" default:"1MiB"`

	// What answers depend on besides route, backend, scheme, host, path and query: text
	// with placeholders, such as `{http.request.header.X-Tenant}`. If it names what a
	// request has in the way of credentials (the user, `Authorization`, a cookie), they
	// do not keep the answer from being stored. Default: none.
	Key string `json:"key,omitempty"`

	// For how long stale answers that do not say so themselves are given while they are
	// validated in the background. Default: 0.
	StaleWhileRevalidate caddy.Duration `json:"stale_while_revalidate,omitempty"`

	// For how long stale answers that do not say so themselves are given when the
	// backend does not answer, or with 500, 502, 503 or 504. Default: 0.
	StaleIfError caddy.Duration `json:"stale_if_error,omitempty"`

	// Whether to say in `Cache-Status` what became of a request. Default: true.
	StatusHeader *bool `json:"status_header,omitempty"`

	// Whether what clients say in `Cache-Control` and `Pragma` does not matter: none of
	// them can then make the backend work. Default: false.
	IgnoreRequestDirectives bool `json:"ignore_request_directives,omitempty"`

	parts       []policy.Key // of the key
	options     httpcache.Options
	tellsStatus bool
	position    policy.Position
	keyed       httpcache.Credentials // that the key tells apart
	keyedByUser bool                  // the key tells users apart, where they are known
	shelf       *cacheShelf
	released    bool // the shelf
	left        bool // the stores. Guarded by the shelf's mutex.
	background  cacheBackground
	sitesMu     sync.Mutex // of those who change sites
	sites       atomic.Pointer[map[policy.Place]*cacheSite]
}

const (
	defaultCacheBytes = 64 << 20
	defaultCacheBody  = 1 << 20
	leastCacheBytes   = 64 << 10
)

// CaddyModule returns the Caddy module information.
func (*Cache) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_cache",
		New: func() caddy.Module { return new(Cache) },
	}
}

// Provision takes hold of the stored answers of the process.
func (p *Cache) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "cache"); err != nil {
		return err
	}
	policy.WarnOfKey(ctx, "key", p.Key)
	p.Key = policy.ExpandPlaceholders(p.Key)
	if p.Off() {
		return nil
	}
	if err := registerCacheMetrics(ctx); err != nil {
		return err
	}
	p.MaxBytes = cmp.Or(p.MaxBytes, defaultCacheBytes)
	p.MaxBody = cmp.Or(p.MaxBody, min(defaultCacheBody, p.MaxBytes/4))
	p.parts = partsOf(p.Key)
	p.keyed, p.keyedByUser = credentialsIn(p.Key)
	p.tellsStatus = p.StatusHeader == nil || *p.StatusHeader
	p.options = httpcache.Options{
		TTL:                  time.Duration(p.TTL),
		StaleWhileRevalidate: time.Duration(p.StaleWhileRevalidate),
		StaleIfError:         time.Duration(p.StaleIfError),
	}
	p.position = policy.PositionOf(ctx, "cache")
	p.background.start()
	shelf, err := acquireShelf()
	p.shelf = shelf
	return err
}

// Check reports the first thing wrong with the options, and what would be right. The
// error has a method Field, which names the option.
func (p *Cache) Check() error {
	if p.Off() {
		return nil
	}
	for _, d := range []struct {
		name  string
		value caddy.Duration
	}{
		{"ttl", p.TTL}, {"stale_while_revalidate", p.StaleWhileRevalidate}, {"stale_if_error", p.StaleIfError},
	} {
		if d.value < 0 {
			return policy.Optionf(d.name, "%s %v is negative: use a time such as 30s, or 0 for none", d.name, time.Duration(d.value))
		}
	}
	most := cmp.Or(p.MaxBytes, defaultCacheBytes)
	if err := policy.CheckKey("key", p.Key); err != nil {
		return err
	}
	switch {
	case most < leastCacheBytes:
		return policy.Optionf("max_bytes", "max_bytes %d is too little to be of use: use 64KiB or more", most)
	case p.MaxBody < 0 || p.MaxBody > most/4:
		return policy.Optionf("max_body", "max_body %d is not within a quarter of max_bytes: use at most %d, or more max_bytes", p.MaxBody, most/4)
	case p.Key != "" && !policy.HasPlaceholder(p.Key):
		return policy.Optionf("key", "key %q has no placeholder and tells no requests apart: use one such as {http.request.header.X-Tenant}", p.Key)
	}
	return nil
}

// Validate does what Check does, for Caddy.
func (p *Cache) Validate() error { return p.Check() }

// Cleanup ends what runs in the background and lets go of the stored answers.
func (p *Cache) Cleanup() error {
	if p.shelf == nil || p.released {
		return nil
	}
	p.released = true
	p.background.stop()
	p.position.Release()
	p.shelf.leave(p)
	return releaseShelf()
}

// ServeHTTP answers a request from the store, or lets the next handler answer it.
func (p *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	site := p.site(r)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		policy.HasBody(r) // makes the length known
	}
	q := httpcache.ReadRequest(r, p.IgnoreRequestDirectives)
	asked := policy.TargetOf(r)
	if q.Bypass == "" && !isForReading(&asked) {
		q.Bypass = httpcache.Method
	}
	if q.Bypass != "" {
		return p.pass(w, r, next, site, q.Bypass)
	}
	if !q.Credentials.Identified() && policy.Authenticated(r) { // by what the backend is not to see
		q.Credentials |= httpcache.User
	}
	if q.Credentials != 0 && p.Key != "" {
		q.Credentials = p.unkeyed(r, q.Credentials)
	}
	return p.answer(w, r, next, site, q)
}

// answer handles a request that may be answered from the store.
func (p *Cache) answer(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, site *cacheSite, q httpcache.Request) error {
	var room [512]byte
	key := p.keyOf(room[:0], r, site)
	now := time.Now()
	stored, others := site.store.Get(key, r.Header)
	why := httpcache.URIMiss
	switch {
	case stored != nil && stored.Implied && q.Credentials != 0:
		return p.pass(w, r, next, site, httpcache.Bypassed)
	case stored != nil:
		var use httpcache.Use
		use, why = q.Judge(&stored.Freshness, now)
		switch use {
		case httpcache.Fresh:
			site.counts.add(cacheHit)
			p.replay(w, r, q, stored, now, provenance{hit: true})
			return nil
		case httpcache.Tolerated:
			site.counts.add(cacheStale)
			p.replay(w, r, q, stored, now, provenance{hit: true, detail: "max-stale"})
			return nil
		case httpcache.Revalidated:
			p.validate(r, next, site, q, key, stored, now)
			site.counts.add(cacheStale)
			p.replay(w, r, q, stored, now, provenance{hit: true, detail: "stale-while-revalidate"})
			return nil
		}
	case others:
		why = httpcache.VaryMiss
	}
	if q.OnlyIfCached {
		site.counts.add(cacheMiss)
		p.tell(w, "rgate; detail=only-if-cached")
		return p.Refuse(w, r, http.StatusGatewayTimeout, errNotStored)
	}
	return p.forward(w, r, next, key, &transfer{policy: p, site: site, q: q, stored: stored, why: why})
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Cache)(nil)
	_ caddy.Validator    = (*Cache)(nil)
	_ caddy.CleanerUpper = (*Cache)(nil)
	_ policy.Module      = (*Cache)(nil)
)
