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

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
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

	// How long responses of a status are fresh that do not say so, such as `404: 5s`; of
	// the classes `4xx` and `5xx`, those that may be stored. A status that is named is
	// stored also if others of its kind are not. Default: `ttl`, and for statuses from 400
	// on a tenth of it, 10s at most.
	TTLByStatus map[string]caddy.Duration `json:"ttl_by_status,omitempty"`

	// How much memory the answers of a gateway may take, with all that belongs to them,
	// from 64KiB on. All caches of a gateway share it; the largest number counts.
	// Default: 64MiB.
	MaxBytes policy.Size `json:"max_bytes,omitempty" default:"64MiB"`

	// How large the body of an answer may be to be stored: at most a quarter of
	// `max_bytes`. Default: 1MiB, or that quarter if it is less.
	MaxBody policy.Size `json:"max_body,omitempty" default:"1MiB"`

	// What responses depend on besides route, backend, scheme, host, path and query: text
	// with placeholders, such as `{http.request.header.X-Tenant}`. A field, cookie,
	// certificate or user that it names does not keep a response from being stored.
	// Default: none.
	Key string `json:"key,omitempty"`

	// Names of request fields that responses do not depend on, such as `X-Org-Id`;
	// `X-Acme-*` for all that begin so, and `*` for all but `Authorization`, `Cookie` and
	// those about users. A field that is not listed here, in `key`, in `Vary` or among the
	// known ones keeps a response from being stored by `ttl`. Default: none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

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

	sharing     *sharing.Rules
	options     httpcache.Options
	tellsStatus bool
	position    policy.Position
	unlisted    bool // fields that are not listed do not matter
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
	at := policy.Standing(ctx)
	p.sharing = sharing.New(p.Key, p.IgnoreFields)
	if p.unlisted = at.Restores(policy.LegacyUnlistedFields); p.unlisted {
		p.sharing = sharing.New(p.Key, append(slices.Clone(p.IgnoreFields), "*"))
		p.sharing.Fields.CookiesByTTL = true
	}
	p.tellsStatus = p.StatusHeader == nil || *p.StatusHeader
	p.options = httpcache.Options{
		TTL:                  time.Duration(p.TTL),
		TTLByStatus:          p.ttlByStatus(),
		Unnegotiated:         p.unlisted,
		StaleWhileRevalidate: time.Duration(p.StaleWhileRevalidate),
		StaleIfError:         time.Duration(p.StaleIfError),
	}
	p.position = policy.PositionOf(ctx, "cache")
	if at.Level == "" {
		for _, warning := range p.Warnings(nil) {
			ctx.Logger().Warn(warning)
		}
	}
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
	if err := p.checkTTLByStatus(); err != nil {
		return err
	}
	if err := sharing.CheckIgnoredFields(p.IgnoreFields); err != nil {
		return err
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

// checkTTLByStatus reports the first wrong entry of the option ttl_by_status.
func (p *Cache) checkTTLByStatus() error {
	for _, text := range slices.Sorted(maps.Keys(p.TTLByStatus)) {
		status, ok := policy.ParseStatus(text)
		switch {
		case !ok:
			return policy.Optionf("ttl_by_status", "invalid status %q: must be 200 to 599, or a class such as 4xx", text)
		case !httpcache.MayHaveTTL(status):
			return policy.Optionf("ttl_by_status", "responses with status %s are for one client: remove it", text)
		case p.TTLByStatus[text] < 0:
			return policy.Optionf("ttl_by_status", "the time of %s is negative: use a time such as 5s, or 0 for none", text)
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
		status, _ := policy.ParseStatus(text) // Check reports errors
		ttl[status] = time.Duration(d)
	}
	return ttl
}

// Validate does what Check does, for Caddy.
func (p *Cache) Validate() error { return p.Check() }

// Warnings implements policy.Warner.
func (p *Cache) Warnings([]caddyhttp.MiddlewareHandler) (messages []string) {
	if p.Off() {
		return nil
	}
	if p.IgnoreFields == nil && p.Key == "" && !p.unlisted {
		messages = append(messages, "responses to requests with cookies, keys or other credentials, and by ttl those to requests with unknown fields, are stored only if they are public or their Vary names the field: "+
			"name fields that do not change responses in ignore_fields, or write `ignore_fields: []` if there are none; earlier versions stored more, and legacy: ["+policy.LegacyUnlistedFields+"] restores that")
	}
	if p.TTL > 0 && p.TTLByStatus == nil {
		messages = append(messages, "errors such as 404 are fresh for a tenth of ttl, 10s at most: set ttl_by_status to change it, such as `4xx: 30s`, or write `ttl_by_status: {}` to keep it; "+
			"in earlier versions they were fresh for the whole ttl")
	}
	return messages
}

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
	q := p.sharing.Read(r, p.IgnoreRequestDirectives)
	asked := policy.TargetOf(r)
	if q.Bypass == "" && !sharing.IsRead(&asked) {
		q.Bypass = httpcache.Method
	}
	if q.Bypass != "" {
		return p.pass(w, r, next, site, q.Bypass, q.Exclusive)
	}
	return p.answer(w, r, next, site, q)
}

// answer handles a request that may be answered from the store.
func (p *Cache) answer(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, site *cacheSite, q httpcache.Request) error {
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
	_ policy.Warner      = (*Cache)(nil)
)
