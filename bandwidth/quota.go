package bandwidth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(new(Quota))
	httpcaddyfile.RegisterHandlerDirective("rgate_quota", policy.Directive[Quota])
}

// Quota limits the bytes of a backend, a route, a group or the whole gateway in a period.
// It can limit each consumer separately. `notify` sends a message when a threshold is
// reached. `at_limit` sets the action at 100%.
//
// Usage is read from the database of `bandwidth` and includes all gateways on that
// database. Quotas of several levels apply together.
type Quota struct {
	policy.Base

	// The maximum number of body bytes that clients may receive in a period. Default:
	// unlimited.
	Egress options.Size `json:"egress,omitempty" caddyfile:"arg"`

	// The length of a period: `day`, `week` (starting on Monday), `month`, or a number of
	// days such as `30d`, counted from 1970-01-01. Default: `month`.
	Period string `json:"period,omitempty" caddyfile:"arg"`

	// The maximum number of body bytes that clients may send in a period. Default:
	// unlimited.
	Ingress options.Size `json:"ingress,omitempty"`

	// The maximum number of body bytes in both directions in a period. Default:
	// unlimited.
	Total options.Size `json:"total,omitempty"`

	// The time zone in which periods start at midnight, such as `Europe/Berlin`. Default:
	// `UTC`.
	TimeZone string `json:"timezone,omitempty"`

	// The action at the limit, until the period ends: `notify` only sends messages,
	// `throttle` limits the rate of bodies, `block` rejects requests with 429. Default:
	// `notify`.
	AtLimit string `json:"at_limit,omitempty"`

	// The rate of `throttle` in bytes per second, shared by a gateway's requests of the
	// same allocation. Minimum: 1KB. Default: the allocation divided by the period.
	ThrottleRate options.Size `json:"throttle_rate,omitempty"`

	// The percentages of the allocation at which messages are sent: up to 20 numbers from
	// 1 to 1000. Default: 80, 90 and 100.
	Thresholds []int `json:"thresholds,omitempty"`

	// Whether the estimated bytes of header fields count as well. Default: false.
	CountHeaders bool `json:"count_headers,omitempty"`

	// `consumer` gives each authenticated consumer a separate allocation; unauthenticated
	// requests are not limited. Default: one allocation for all requests.
	Per string `json:"per,omitempty"`

	// Consumers with different allocations. Requires `per: consumer`.
	Consumers []QuotaConsumer `json:"consumers,omitempty"`

	// The name in messages and reports. Required if the backend, route, group or gateway
	// has another quota with the same period. Default: the name of the backend, route,
	// group or gateway.
	Name string `json:"name,omitempty"`

	// The name of the statistics to read usage from, outside of a gateway. Default:
	// `rgate_stats`.
	Gateway string `json:"gateway,omitempty"`

	shared *sharedQuota
	leave  func()
	now    func() time.Time
}

// QuotaConsumer is the allocation of one consumer. Unset limits are inherited from the
// quota.
type QuotaConsumer struct {
	// The consumer: the name of the API key, or the user of the token. Required.
	Name string `json:"name,omitempty" caddyfile:"arg"`

	// The maximum number of body bytes that the consumer may receive. Default: the
	// quota's value.
	Egress options.Size `json:"egress,omitempty" caddyfile:"arg"`

	// The maximum number of body bytes that the consumer may send. Default: the quota's
	// value.
	Ingress options.Size `json:"ingress,omitempty"`

	// The maximum number of body bytes in both directions. Default: the quota's value.
	Total options.Size `json:"total,omitempty"`
}

// The values of at_limit.
const (
	limitNotify   = "notify"
	limitThrottle = "throttle"
	limitBlock    = "block"
)

const (
	perConsumer = "consumer"

	defaultPeriod   = "month"
	defaultTimeZone = "UTC"

	lowestRate    = 1000 // bytes per second
	maxThreshold  = 1000 // percent
	maxThresholds = 20
)

var defaultThresholds = []int{80, 90, 100}

// CaddyModule returns the Caddy module information.
func (*Quota) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_quota",
		New: func() caddy.Module { return new(Quota) },
	}
}

// Check implements policy.Module.
func (p *Quota) Check() error {
	if p.Off() {
		return nil
	}
	if _, err := parseCalendar(cmp.Or(p.Period, defaultPeriod), cmp.Or(p.TimeZone, defaultTimeZone)); err == errPeriod {
		return options.Errorf("period", "invalid period %q: %v", p.Period, err)
	} else if err != nil {
		return options.Errorf("timezone", "unknown time zone %q: %v", p.TimeZone, err)
	}
	switch {
	case p.Egress == 0 && p.Ingress == 0 && p.Total == 0 && len(p.Consumers) == 0:
		return options.Errorf("egress", "egress, ingress or total is required: set one, such as egress: 10GB")
	case !slices.Contains([]string{"", limitNotify, limitThrottle, limitBlock}, p.AtLimit):
		return options.Errorf("at_limit", "unknown at_limit %q: use notify, throttle or block", p.AtLimit)
	case p.ThrottleRate != 0 && p.AtLimit != limitThrottle:
		return options.Errorf("throttle_rate", "throttle_rate requires at_limit: throttle: set at_limit: throttle or remove throttle_rate")
	case p.ThrottleRate != 0 && p.ThrottleRate < lowestRate:
		return options.Errorf("throttle_rate", "invalid throttle_rate %d: must be at least 1KB per second", p.ThrottleRate)
	case p.Per != "" && p.Per != perConsumer:
		return options.Errorf("per", "unknown per %q: use consumer or remove per", p.Per)
	case len(p.Consumers) > 0 && p.Per == "":
		return options.Errorf("consumers", "consumers requires per: consumer: set per: consumer or remove consumers")
	case len(p.Thresholds) > maxThresholds:
		return options.Errorf("thresholds", "too many thresholds, %d: use at most %d", len(p.Thresholds), maxThresholds)
	}
	for i, percent := range p.Thresholds {
		if percent < 1 || percent > maxThreshold {
			return options.Errorf(fmt.Sprintf("thresholds[%d]", i), "invalid threshold %d: must be 1 to %d percent, such as 80", percent, maxThreshold)
		}
	}
	return p.checkConsumers()
}

func (p *Quota) checkConsumers() error {
	seen := make(map[string]bool)
	for i, c := range p.Consumers {
		at := fmt.Sprintf("consumers[%d]", i)
		switch {
		case c.Name == "":
			return options.Errorf(at+".name", "name is required: set the name of a consumer")
		case seen[c.Name]:
			return options.Errorf(at+".name", "duplicate consumer %q: remove one of the two", c.Name)
		case c.Egress == 0 && c.Ingress == 0 && c.Total == 0:
			return options.Errorf(at+".egress", "consumer %q requires egress, ingress or total: set one of them", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// Provision starts the evaluation of the quota.
func (p *Quota) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "quota"); err != nil {
		return err
	}
	p.now = time.Now
	if p.Off() {
		return nil
	}
	if err := p.Check(); err != nil {
		return err
	}
	gateway := gatewayOf(ctx, p.Gateway)
	if err := p.checkKept(ctx, gateway); err != nil {
		return err
	}
	spec, err := p.spec(policy.ScopeOf(ctx), gateway)
	if err != nil {
		return err
	}
	p.shared, p.leave, err = joinQuota(ctx, spec)
	return err
}

// gatewayOf returns the name of the gateway that contains the handler. Outside of a
// gateway, it returns option, or the default name if option is empty.
func gatewayOf(ctx caddy.Context, option string) string {
	return cmp.Or(policy.ScopeOf(ctx).Gateway, option, stats.DefaultName)
}

// Validate implements caddy.Validator.
func (p *Quota) Validate() error { return p.Check() }

// Cleanup ends the evaluation of the quota, unless a newer configuration has the same
// quota.
func (p *Quota) Cleanup() error {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
	return nil
}

var consumerKey = placeholder.ParseKey("{http.auth.user.id}")

// ServeHTTP forwards, throttles or rejects a request according to the last evaluation.
func (p *Quota) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	var state *limitState
	if p.Per == perConsumer {
		consumer := consumerKey.Of(r)
		if consumer == "" {
			return next.ServeHTTP(w, r)
		}
		stats.AttributeTo(w, consumer)
		state = p.shared.ofConsumer(consumer)
	} else {
		state = p.shared.whole.Load()
	}
	if state == nil {
		return next.ServeHTTP(w, r)
	}
	rest := state.until.Sub(p.now())
	switch {
	case rest <= 0: // the period is over, but the next one is not evaluated yet
		return next.ServeHTTP(w, r)
	case p.AtLimit == limitThrottle:
		return state.slowDown(w, r, next)
	case p.AtLimit == limitBlock:
		return p.refuse(w, r, state, rest)
	}
	return next.ServeHTTP(w, r)
}

var errUsedUp = errors.New("the quota is used up")

// refuse rejects a request with 429. The limit and the usage are only sent to consumers
// with a separate allocation.
func (p *Quota) refuse(w http.ResponseWriter, r *http.Request, state *limitState, rest time.Duration) error {
	seconds := strconv.FormatInt(int64((rest+time.Second-1)/time.Second), 10)
	header := w.Header()
	header.Set("Retry-After", seconds)
	header.Set("X-Quota-Reset", seconds)
	if p.Per == perConsumer {
		header.Set("X-Quota-Limit", strconv.FormatInt(state.limit, 10))
		header.Set("X-Quota-Used", strconv.FormatInt(state.used, 10))
	}
	return p.Refuse(w, r, http.StatusTooManyRequests, errUsedUp)
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Quota)(nil)
	_ caddy.Validator    = (*Quota)(nil)
	_ caddy.CleanerUpper = (*Quota)(nil)
	_ policy.Module      = (*Quota)(nil)
)
