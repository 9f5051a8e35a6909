// Package ratelimit implements the rate_limit and throttle policies, which reject or delay
// requests above a rate.
package ratelimit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(RateLimit))
	httpcaddyfile.RegisterHandlerDirective("rgate_rate_limit", policy.Directive[RateLimit])
}

// RateLimit is a handler that rejects requests with 429 if a client, user or other key
// exceeds its limit.
//
// Requests are counted in a sliding window, in memory or, across several gateways, in
// Redis. If Redis is unavailable, each gateway counts independently.
//
// Responses contain `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` for
// the limit that is closest to exhaustion (draft-ietf-httpapi-ratelimit-headers-03).
// Rejected requests get `Retry-After`.
type RateLimit struct {
	policy.Base

	// The maximum number of requests within any period of the window's length, 1 to
	// 1000000000. Required unless `limits` is set.
	Requests int64 `json:"requests,omitempty" caddyfile:"arg"`

	// The length of the window, such as `60s`. Range: 1ms to 8784h. Required with
	// `requests`.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`

	// Several limits with windows of different lengths, instead of `requests` and
	// `window`. A request must be within all limits. A rejected request is counted under
	// none. Maximum: 8.
	Limits []Limit `json:"limits,omitempty"`

	RateKey

	// The cost of a request: a whole number of at least 1, or a string with placeholders
	// that evaluates to one. Invalid values count as 1. Default: 1.
	Cost Cost `json:"cost,omitempty"`

	// The URL of a Redis server that several gateways share for counting:
	// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or
	// `unix://`. With `?master_name=…`, the addresses are sentinels. With `?addr=…` for
	// each further node, they are cluster nodes. Placeholders such as
	// `{env.REDIS_PASSWORD}` are replaced when the configuration is loaded. Default:
	// none, requests are counted in memory.
	Redis string `json:"redis,omitempty"`

	// The timeout of Redis per request. After it, the gateway counts in memory. Default:
	// 50ms.
	RedisTimeout caddy.Duration `json:"redis_timeout,omitempty" default:"50ms"`

	// The maximum number of keys in memory, counted once per limit, 1000 to 100000000. If
	// it is exceeded, the least used keys are evicted. Default: 0, the policy shares a
	// table of 1000000 keys with other policies.
	MaxKeys int `json:"max_keys,omitempty"`

	// Whether to omit the `RateLimit-*` header fields from responses. `Retry-After` is
	// kept. Default: false.
	HideHeaders bool `json:"hide_headers,omitempty"`

	limits []limit
	texts  []string // formatted numbers of requests
	cost   placeholder.Key
	fixed  int64 // the cost if it is constant, or 0

	ignoresFailures bool   // whether failed authentications are not counted
	reachedVar      string // request variable with the failureWatch; empty without a gate

	local  *limiter
	table  tableKey
	spaces [2]uint64
	redis  *redisCounter
	server string // URL of the Redis server; empty without Redis
}

// Limit is a maximum number of requests within a window.
type Limit struct {
	// The maximum number of requests within any period of the window's length, 1 to
	// 1000000000. Required.
	Requests int64 `json:"requests,omitempty" caddyfile:"arg"`

	// The length of the window. Range: 1ms to 8784h. Required.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`
}

// Cost is a number, or a string with placeholders that evaluates to a number.
type Cost string

// UnmarshalJSON decodes a number or a string.
func (c *Cost) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		var number json.Number
		if err := json.Unmarshal(data, &number); err != nil {
			return errors.New("invalid cost: must be a whole number above 0, or a string with a placeholder")
		}
		text = number.String()
	}
	*c = Cost(text)
	return nil
}

const (
	maxLimits    = 8
	maxMaxKeys   = 100_000_000
	redisTimeout = 50 * time.Millisecond
)

// CaddyModule returns the Caddy module information.
func (*RateLimit) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_rate_limit",
		New: func() caddy.Module { return new(RateLimit) },
	}
}

// Provision acquires the counters. It does not wait for a connection to Redis.
func (p *RateLimit) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "rate_limit"); err != nil {
		return err
	}
	if p.Off() {
		return nil
	}
	if err := registerRateMetrics(ctx); err != nil {
		return err
	}
	// The URL is not part of the identity, because gateways can reach the same Redis
	// server under different URLs.
	identifying := RateLimit{Requests: p.Requests, Window: p.Window, Limits: p.Limits, RateKey: p.RateKey, Cost: p.Cost}
	if err := p.RateKey.provision(ctx, p, &identifying, p.Redis != ""); err != nil {
		return err
	}
	p.ignoresFailures = policy.ScopeOf(ctx).HasLegacy(policy.LegacyUncountedFailures)
	if p.Redis != "" {
		p.RedisTimeout = cmp.Or(p.RedisTimeout, caddy.Duration(redisTimeout))
	}
	for _, l := range p.all() {
		p.limits = append(p.limits, limit{l.Requests, time.Duration(l.Window)})
		p.texts = append(p.texts, strconv.FormatInt(l.Requests, 10))
	}
	placeholder.WarnUnknown(ctx, "cost", string(p.Cost))
	p.cost = placeholder.ParseKey(string(p.Cost))
	p.fixed, _ = parseCost(cmp.Or(string(p.Cost), "1")) // 0 if it contains placeholders
	return p.acquire()
}

// acquire acquires the state that survives reloads.
func (p *RateLimit) acquire() (err error) {
	table := sharedTable
	if p.MaxKeys != 0 {
		table = tableKey{p.identity, p.MaxKeys}
	}
	if p.local, err = acquireLimiter(table); err != nil {
		return err
	}
	p.table = table
	p.spaces = p.RateKey.spaces(p.local.hasher)
	if p.Redis == "" {
		return nil
	}
	url, err := fillRedisURL(p.Redis)
	if err != nil {
		return err
	}
	if p.redis, err = acquireRedis(url); err != nil {
		return fmt.Errorf("setting up redis: %w", err)
	}
	p.server = url
	return nil
}

// Check returns the first invalid option as an *options.Error.
func (p *RateLimit) Check() error {
	if p.Off() {
		return nil
	}
	for _, check := range []func() *options.Error{p.checkLimits, p.RateKey.check, p.checkCost, p.checkRedis, p.checkMaxKeys} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Validate implements caddy.Validator.
func (p *RateLimit) Validate() error { return p.Check() }

// all returns the configured limits.
func (p *RateLimit) all() []Limit {
	if len(p.Limits) == 0 {
		return []Limit{{p.Requests, p.Window}}
	}
	return p.Limits
}

func (p *RateLimit) checkLimits() *options.Error {
	if len(p.Limits) == 0 {
		return checkLimit("", p.Requests, p.Window)
	}
	if p.Requests != 0 || p.Window != 0 {
		return options.Errorf("limits", "limits cannot be combined with requests or window: move requests and window into limits")
	}
	if len(p.Limits) > maxLimits {
		return options.Errorf("limits", "too many limits (%d): use at most %d", len(p.Limits), maxLimits)
	}
	seen := make(map[caddy.Duration]bool)
	for i, l := range p.Limits {
		path := fmt.Sprintf("limits[%d]", i)
		if err := checkLimit(path+".", l.Requests, l.Window); err != nil {
			return err
		}
		if seen[l.Window] {
			return options.Errorf(path+".window", "duplicate window %v: remove the limit with more requests", time.Duration(l.Window))
		}
		seen[l.Window] = true
	}
	return nil
}

func checkLimit(path string, requests int64, window caddy.Duration) *options.Error {
	switch {
	case requests == 0 && window == 0:
		return options.Errorf(path+"requests", "requests and window are required: set both, such as 1000 and 60s")
	case requests == 0:
		return options.Errorf(path+"requests", "requests is required: set the number of requests allowed in %v", time.Duration(window))
	case requests < 1 || requests > maxRequests:
		return options.Errorf(path+"requests", "invalid requests %d: must be 1 to %d", requests, maxRequests)
	case window == 0:
		return options.Errorf(path+"window", "window is required: set the time in which %d requests are allowed, such as 60s", requests)
	case window < caddy.Duration(time.Millisecond) || window > caddy.Duration(maxWindow):
		return options.Errorf(path+"window", "invalid window %v: must be 1ms to 8784h", time.Duration(window))
	}
	return nil
}

func (p *RateLimit) checkCost() *options.Error {
	text := string(p.Cost)
	if err := placeholder.CheckKey("cost", text); err != nil {
		return err
	}
	cost, ok := parseCost(text)
	for _, l := range p.all() {
		if ok && cost > l.Requests {
			return options.Errorf("cost", "invalid cost %s: must be at most %d, the number of requests of a limit", text, l.Requests)
		}
	}
	if text != "" && !ok && !placeholder.Has(text) {
		return options.Errorf("cost", "invalid cost %q: must be a whole number above 0, or contain a placeholder such as {http.request.header.X-Cost}", text)
	}
	return nil
}

func (p *RateLimit) checkRedis() *options.Error {
	if p.RedisTimeout < 0 {
		return options.Errorf("redis_timeout", "invalid redis_timeout %v: must be a positive duration such as 50ms", time.Duration(p.RedisTimeout))
	}
	if p.Redis == "" && p.RedisTimeout != 0 {
		return options.Errorf("redis_timeout", "redis_timeout requires redis: set redis, such as redis://127.0.0.1:6379/0, or remove redis_timeout")
	}
	if p.Redis == "" || placeholder.Has(p.Redis) { // can only be validated after replacement
		return nil
	}
	if _, err := parseRedisURL(p.Redis); err != nil {
		return options.Errorf("redis", "%v", err)
	}
	return nil
}

func (p *RateLimit) checkMaxKeys() *options.Error {
	if p.MaxKeys != 0 && (p.MaxKeys < minMaxKeys || p.MaxKeys > maxMaxKeys) {
		return options.Errorf("max_keys", "invalid max_keys %d: must be %d to %d", p.MaxKeys, minMaxKeys, maxMaxKeys)
	}
	return nil
}

// Cleanup releases the counters. Requests in flight can still use them.
func (p *RateLimit) Cleanup() error {
	var errs []error
	if p.server != "" {
		errs = append(errs, releaseRedis(p.server))
		p.server = ""
	}
	if p.table != (tableKey{}) {
		errs = append(errs, releaseLimiter(p.table))
		p.table = tableKey{}
	}
	return errors.Join(append(errs, p.RateKey.release())...)
}

// ServeHTTP counts a request and rejects it if it exceeds a limit.
func (p *RateLimit) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	if p.reachedVar != "" {
		if watch, ok := caddyhttp.GetVar(r.Context(), p.reachedVar).(*failureWatch); ok {
			watch.reached = true
		}
	}
	d := p.decide(w, r)
	if d.admitted {
		return next.ServeHTTP(w, r)
	}
	return p.refuse(w, r, d)
}

func (p *RateLimit) refuse(w http.ResponseWriter, r *http.Request, d decision) error {
	if c := p.Logger().Check(zapcore.DebugLevel, "request rejected by rate_limit"); c != nil {
		c.Write(zap.Int64("requests", d.limit.requests), zap.Duration("window", d.limit.window), zap.Duration("retry_after", d.after))
	}
	setRetryAfter(w.Header(), d.after)
	return p.RefuseWithJSON(w, r, http.StatusTooManyRequests, errLimited)
}

var errLimited = errors.New("the request exceeds the rate limit")

// decide counts a request and sets the header fields of the response.
func (p *RateLimit) decide(w http.ResponseWriter, r *http.Request) decision {
	d := p.count(r, p.hash(r, p.local.hasher, &p.spaces))
	if !p.HideHeaders {
		setHeaders(w.Header(), &d, p.textOf(d.limit))
	}
	return d
}

func (p *RateLimit) count(r *http.Request, key uint64) decision {
	return p.countKey(key, func() string { return p.text(r) }, p.costOf(r))
}

// countKey counts a request under a key. Only Redis requires the key as a string.
func (p *RateLimit) countKey(key uint64, text func() string, cost int64) decision {
	if p.redis == nil {
		return p.local.take(monotime.Now(), key, cost, p.limits...)
	}
	if d, ok := p.redis.take(time.Duration(p.RedisTimeout), text(), cost, p.limits); ok {
		if d.admitted { // continues from these counts if Redis becomes unavailable
			p.local.add(monotime.Now(), key, cost, p.limits...)
		}
		return d
	}
	return p.local.take(monotime.Now(), key, cost, p.limits...)
}

// costOf returns the cost of a request. It logs invalid costs and counts them as 1.
func (p *RateLimit) costOf(r *http.Request) int64 {
	if p.fixed != 0 {
		return p.fixed
	}
	cost, ok := parseCost(p.cost.Of(r))
	if !ok {
		if c := p.Logger().Check(zapcore.WarnLevel, "invalid cost of a request, counting it as 1"); c != nil {
			c.Write(zap.String("cost", string(p.Cost)))
		}
		return 1
	}
	return cost
}

// parseCost parses a cost and caps it at a value above all limits.
func parseCost(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && !(errors.Is(err, strconv.ErrRange) && n > 0) || n < 1 {
		return 0, false
	}
	return min(n, maxRequests+1), true
}

func (p *RateLimit) textOf(l limit) string {
	for i := range p.limits {
		if p.limits[i] == l {
			return p.texts[i]
		}
	}
	return ""
}

// Interface guards
var (
	_ caddy.Provisioner  = (*RateLimit)(nil)
	_ caddy.Validator    = (*RateLimit)(nil)
	_ caddy.CleanerUpper = (*RateLimit)(nil)
	_ policy.Module      = (*RateLimit)(nil)
)
