// Package cache implements the handler rgate_cache, a shared HTTP cache in memory, and its
// endpoints of the admin API.
package cache

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

func init() {
	caddy.RegisterModule(new(Cache))
	httpcaddyfile.RegisterHandlerDirective("rgate_cache", policy.Directive[Cache])
}

// Cache stores responses in memory and serves GET and HEAD requests from it. It
// implements the rules of RFC 9111 for a shared cache. `Cache-Control` and `Expires` of a
// response set its lifetime; `ttl` applies to responses without them.
//
// The response field `Cache-Status` (RFC 9211) describes how a request was handled.
// Responses may list tags in `Cache-Tag` or `Surrogate-Key`. The admin API can purge
// responses by tag.
type Cache struct {
	policy.Base

	// The lifetime of responses without explicit freshness, such as `30s`. These
	// responses are stored and served only for requests without credentials and unknown
	// fields; see `ignore_fields`. Default: 0. Without explicit freshness, only responses
	// with `public` or `no-cache` are stored.
	TTL caddy.Duration `json:"ttl,omitempty" caddyfile:"arg"`

	// The lifetime by status of responses without explicit freshness, such as `404: 5s`.
	// A class such as `4xx` includes only statuses that are cacheable by default. A listed
	// status is stored even if it is not cacheable by default. Default: `ttl`. For
	// statuses of 400 and above, the default is a tenth of `ttl`, at most 10s.
	TTLByStatus map[string]caddy.Duration `json:"ttl_by_status,omitempty"`

	// The maximum memory for the stored responses of a gateway, at least 64KiB. All
	// caches of a gateway share it, and the largest value applies. Default: 64MiB.
	MaxBytes options.Size `json:"max_bytes,omitempty" default:"64MiB"`

	// The maximum size of a response body that is stored, at most a quarter of
	// `max_bytes`. Default: 1MiB, or a quarter of `max_bytes` if it is less.
	MaxBody options.Size `json:"max_body,omitempty" default:"1MiB"`

	// An additional part of the cache key, with placeholders such as
	// `{http.request.header.X-Tenant}`. The key always contains route, backend, scheme,
	// host, path and query. Responses to requests with a field, cookie, certificate or
	// user in `key` may be stored. Default: none.
	Key string `json:"key,omitempty"`

	// Names of request header fields that do not affect responses, such as `X-Org-Id`.
	// `X-Acme-*` matches all fields with the prefix. `*` matches all unknown fields and
	// credentials, except `Authorization`, `Cookie` and identity fields. A request field
	// is unknown if it is neither well-known nor in this list, in `key` or in `Vary`.
	// `ttl` does not apply to responses to requests with unknown fields. Default: none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

	// The time for which stale responses are served while they are validated in the
	// background. It applies to responses without the directive `stale-while-revalidate`.
	// Default: 0.
	StaleWhileRevalidate caddy.Duration `json:"stale_while_revalidate,omitempty"`

	// The time for which stale responses are served when the backend does not respond, or
	// responds with 500, 502, 503 or 504. It applies to responses without the directive
	// `stale-if-error`. Default: 0.
	StaleIfError caddy.Duration `json:"stale_if_error,omitempty"`

	// Whether the field `Cache-Status` is added to responses. Default: true.
	StatusHeader *bool `json:"status_header,omitempty"`

	// Whether `Cache-Control` and `Pragma` of requests are ignored, so that clients
	// cannot bypass the cache. Default: false.
	IgnoreRequestDirectives bool `json:"ignore_request_directives,omitempty"`

	sharing    *sharing.Rules
	options    httpcache.Options
	hasStatus  bool
	position   policy.Position
	unlisted   bool // fields that are not in IgnoreFields are ignored, as in earlier versions
	stores     *storePool
	released   bool // Cleanup has released the pool
	left       bool // all stores are released. Guarded by the pool's mu.
	background cacheBackground
	sitesMu    sync.Mutex // held while sites is replaced
	sites      atomic.Pointer[map[policy.RouteInfo]*cacheSite]
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

// Provision sets up the policy and acquires the process-wide pool of stores.
func (p *Cache) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "cache"); err != nil {
		return err
	}
	placeholder.WarnUnknown(ctx, "key", p.Key)
	p.Key = placeholder.Expand(p.Key)
	if p.Off() {
		return nil
	}
	if err := registerCacheMetrics(ctx); err != nil {
		return err
	}
	p.MaxBytes = cmp.Or(p.MaxBytes, defaultCacheBytes)
	p.MaxBody = cmp.Or(p.MaxBody, min(defaultCacheBody, p.MaxBytes/4))
	at := policy.ScopeOf(ctx)
	p.sharing = sharing.New(p.Key, p.IgnoreFields)
	if p.unlisted = at.HasLegacy(policy.LegacyUnlistedFields); p.unlisted {
		p.sharing = sharing.New(p.Key, append(slices.Clone(p.IgnoreFields), "*"))
		p.sharing.Fields.CookiesByTTL = true
	}
	p.hasStatus = p.StatusHeader == nil || *p.StatusHeader
	p.options = httpcache.Options{
		TTL:                  time.Duration(p.TTL),
		TTLByStatus:          p.ttlByStatus(),
		Unnegotiated:         p.unlisted,
		StaleWhileRevalidate: time.Duration(p.StaleWhileRevalidate),
		StaleIfError:         time.Duration(p.StaleIfError),
	}
	p.position = policy.ContentPositionOf(ctx, "cache")
	if at.Level == "" {
		for _, warning := range p.Warnings(nil) {
			ctx.Logger().Warn(warning)
		}
	}
	p.background.start()
	stores, err := acquireStores()
	p.stores = stores
	return err
}

// Check returns an error for the first invalid option.
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
			return options.Errorf(d.name, "invalid %s %v: must not be negative", d.name, time.Duration(d.value))
		}
	}
	if err := p.checkTTLByStatus(); err != nil {
		return err
	}
	if err := sharing.CheckIgnoredFields(p.IgnoreFields); err != nil {
		return err
	}
	most := cmp.Or(p.MaxBytes, defaultCacheBytes)
	if err := placeholder.CheckKey("key", p.Key); err != nil {
		return err
	}
	switch {
	case most < leastCacheBytes:
		return options.Errorf("max_bytes", "invalid max_bytes %d: must be at least 64KiB", most)
	case p.MaxBody < 0 || p.MaxBody > most/4:
		return options.Errorf("max_body", "invalid max_body %d: must be at most %d, a quarter of max_bytes", p.MaxBody, most/4)
	case p.Key != "" && !placeholder.Has(p.Key):
		return options.Errorf("key", "invalid key %q: must have a placeholder, such as {http.request.header.X-Tenant}", p.Key)
	}
	return nil
}

// checkTTLByStatus returns an error for the first invalid entry of ttl_by_status.
func (p *Cache) checkTTLByStatus() error {
	for _, text := range slices.Sorted(maps.Keys(p.TTLByStatus)) {
		status, ok := failure.ParseStatus(text)
		switch {
		case !ok:
			return options.Errorf("ttl_by_status", "invalid status %q: must be 200 to 599, or a class such as 4xx", text)
		case !httpcache.MayHaveTTL(status):
			return options.Errorf("ttl_by_status", "responses with status %s cannot be cached: remove the status", text)
		case p.TTLByStatus[text] < 0:
			return options.Errorf("ttl_by_status", "invalid ttl %v of status %s: must not be negative", time.Duration(p.TTLByStatus[text]), text)
		}
	}
	return nil
}

func (p *Cache) ttlByStatus() map[int]time.Duration {
	if p.TTLByStatus == nil {
		return nil
	}
	ttl := make(map[int]time.Duration, len(p.TTLByStatus))
	for text, d := range p.TTLByStatus {
		status, _ := failure.ParseStatus(text) // validated by Check
		ttl[status] = time.Duration(d)
	}
	return ttl
}

// Validate implements caddy.Validator.
func (p *Cache) Validate() error { return p.Check() }

// Warnings implements policy.Warner.
func (p *Cache) Warnings([]caddyhttp.MiddlewareHandler) (messages []string) {
	if p.Off() {
		return nil
	}
	if p.IgnoreFields == nil && p.Key == "" && !p.unlisted {
		messages = append(messages, "responses to requests with cookies, API keys or other credentials, and with ttl also to requests with unknown header fields, are stored only if they are public or their Vary lists the field: "+
			"list fields that do not change responses in ignore_fields, or write `ignore_fields: []` if there are none; earlier versions stored more, and legacy: ["+policy.LegacyUnlistedFields+"] restores that")
	}
	if p.TTL > 0 && p.TTLByStatus == nil {
		messages = append(messages, "errors such as 404 are fresh for a tenth of ttl, 10s at most: set ttl_by_status to change this, such as `4xx: 30s`, or write `ttl_by_status: {}` to keep the default; "+
			"in earlier versions they were fresh for the whole ttl")
	}
	return messages
}

// Cleanup stops background requests and releases the stores.
func (p *Cache) Cleanup() error {
	if p.stores == nil || p.released {
		return nil
	}
	p.released = true
	p.background.stop()
	p.position.Release()
	p.stores.leave(p)
	return releaseStores()
}

// ServeHTTP serves a stored response, or forwards the request.
func (p *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	site := p.site(r)
	q := p.sharing.Read(r, p.IgnoreRequestDirectives)
	asked := policy.TargetOf(r)
	if q.Bypass == "" && !sharing.IsRead(&asked) {
		q.Bypass = httpcache.Method
	}
	if q.Bypass != "" {
		return p.pass(w, r, next, site, q.Bypass, q.Exclusive)
	}
	return p.respond(w, r, next, site, q)
}

// respond serves a request from the store if possible, and otherwise forwards it.
func (p *Cache) respond(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, site *cacheSite, q httpcache.Request) error {
	var room [512]byte
	key := p.keyOf(room[:0], r, site, &q)
	now := time.Now()
	stored, others := site.store.Get(key, &q)
	field := ""
	if stored != nil && (stored.Implied || stored.OwnWhile || stored.OwnIf) {
		q.Personal, field = q.PersonalTo(stored.Values("Vary"))
	}
	why := httpcache.URIMiss
	switch {
	case stored != nil && stored.Implied && q.Personal:
		return p.pass(w, r, next, site, httpcache.Bypassed, field)
	case stored != nil:
		var use httpcache.Use
		use, why = q.Judge(&stored.Freshness, now)
		switch use {
		case httpcache.Fresh:
			site.counts.add(cacheHit)
			p.replay(w, r, q, stored, now, cacheStatus{hit: true})
			return nil
		case httpcache.Tolerated:
			site.counts.add(cacheStale)
			p.replay(w, r, q, stored, now, cacheStatus{hit: true, detail: "max-stale"})
			return nil
		case httpcache.Revalidated:
			p.validate(r, next, site, q, key, stored, now)
			site.counts.add(cacheStale)
			p.replay(w, r, q, stored, now, cacheStatus{hit: true, detail: "stale-while-revalidate"})
			return nil
		}
	case others:
		why = httpcache.VaryMiss
	}
	if q.OnlyIfCached {
		site.counts.add(cacheMiss)
		p.addStatus(w, "rgate; detail=only-if-cached")
		return p.Refuse(w, r, http.StatusGatewayTimeout, errNotStored)
	}
	return p.forward(w, r, next, key, &recorder{policy: p, site: site, q: q, stored: stored, why: why})
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Cache)(nil)
	_ caddy.Validator    = (*Cache)(nil)
	_ caddy.CleanerUpper = (*Cache)(nil)
	_ policy.Module      = (*Cache)(nil)
	_ policy.Warner      = (*Cache)(nil)
)
