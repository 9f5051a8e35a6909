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

// Quota allocates bandwidth to a backend, a route, a group, the whole gateway, or each
// of their consumers, for a period. Whoever `notify` names hears when thresholds are
// reached; what happens at 100 % is its own choice.
//
// What is used is read from the gateway's account, which is exact and shared by all
// gateways on its database. Quotas of several levels all hold.
type Quota struct {
	policy.Base

	// How many bytes of bodies clients may receive in a period. Default: any number.
	Egress options.Size `json:"egress,omitempty" caddyfile:"arg"`

	// How long a period is: `day`, `week` (from Monday on), `month`, or a number of
	// days such as `30d`, which are counted from 1970-01-01. Default: `month`.
	Period string `json:"period,omitempty" caddyfile:"arg"`

	// How many bytes of bodies clients may send in a period. Default: any number.
	Ingress options.Size `json:"ingress,omitempty"`

	// How many bytes they may send and receive together. Default: any number.
	Total options.Size `json:"total,omitempty"`

	// The time zone in which periods begin at midnight, such as `Europe/Berlin`.
	// Default: `UTC`.
	TimeZone string `json:"timezone,omitempty"`

	// What happens when all of it is used up, until the period ends: `notify`, which
	// is nothing but the message; `throttle`, which slows bodies down; or `block`,
	// which answers requests with 429. Default: `notify`.
	AtLimit string `json:"at_limit,omitempty"`

	// With `throttle`, how many bytes per second all requests together may move then,
	// on each gateway, from 1KB. Default: so many that the allocation would last for a
	// period.
	ThrottleRate options.Size `json:"throttle_rate,omitempty"`

	// At which shares of it there are messages, in percent from 1 to 1000. Default:
	// 80, 90 and 100.
	Thresholds []int `json:"thresholds,omitempty"`

	// Counts what header fields take as well, which is an estimate. Default: false.
	CountHeaders bool `json:"count_headers,omitempty"`

	// Whose the allocation is: `consumer` gives each authenticated consumer one of
	// its own; requests of nobody in particular are let through. Default: one for all
	// together.
	Per string `json:"per,omitempty"`

	// Consumers whose allocation is another than everybody's. Needs `per: consumer`.
	Consumers []QuotaConsumer `json:"consumers,omitempty"`

	// What messages and reports call it. Required if there are several with the same
	// period in one place. Default: the name of the place.
	Name string `json:"name,omitempty"`

	// Outside of a gateway, the name of the statistics whose account is read.
	// Default: `rgate_stats`.
	Gateway string `json:"gateway,omitempty"`

	account *account
	leave   func()
	now     func() time.Time
}

// QuotaConsumer is the allocation of one consumer. What it does not say is as it is
// for everybody.
type QuotaConsumer struct {
	// The name of the API key, or whom the token was issued to. Required.
	Name string `json:"name,omitempty" caddyfile:"arg"`

	// How many bytes it may receive.
	Egress options.Size `json:"egress,omitempty" caddyfile:"arg"`

	// How many bytes it may send.
	Ingress options.Size `json:"ingress,omitempty"`

	// How many bytes it may send and receive together.
	Total options.Size `json:"total,omitempty"`
}

// What happens at the limit.
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
		return options.Errorf("period", "there is no period %q: %v", p.Period, err)
	} else if err != nil {
		return options.Errorf("timezone", "there is no time zone %q: %v", p.TimeZone, err)
	}
	switch {
	case p.Egress == 0 && p.Ingress == 0 && p.Total == 0 && len(p.Consumers) == 0:
		return options.Errorf("egress", "nothing is allocated: set egress, ingress or total, such as egress: 10GB")
	case !slices.Contains([]string{"", limitNotify, limitThrottle, limitBlock}, p.AtLimit):
		return options.Errorf("at_limit", "there is no %q: use notify, throttle or block", p.AtLimit)
	case p.ThrottleRate != 0 && p.AtLimit != limitThrottle:
		return options.Errorf("throttle_rate", "nothing is slowed down: set at_limit: throttle, or leave throttle_rate out")
	case p.ThrottleRate != 0 && p.ThrottleRate < lowestRate:
		return options.Errorf("throttle_rate", "%d bytes per second are too few: use 1KB or more", p.ThrottleRate)
	case p.Per != "" && p.Per != perConsumer:
		return options.Errorf("per", "there is no %q: use consumer, or leave it out", p.Per)
	case len(p.Consumers) > 0 && p.Per == "":
		return options.Errorf("consumers", "the allocation is one for all together: set per: consumer, or leave consumers out")
	case len(p.Thresholds) > maxThresholds:
		return options.Errorf("thresholds", "%d are too many: use at most %d", len(p.Thresholds), maxThresholds)
	}
	for i, percent := range p.Thresholds {
		if percent < 1 || percent > maxThreshold {
			return options.Errorf(fmt.Sprintf("thresholds[%d]", i), "%d %% is out of range: use 1 to %d, such as 80", percent, maxThreshold)
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
			return options.Errorf(at+".name", "name is missing: say which consumer it is")
		case seen[c.Name]:
			return options.Errorf(at+".name", "%q is there twice: keep one of the two", c.Name)
		case c.Egress == 0 && c.Ingress == 0 && c.Total == 0:
			return options.Errorf(at+".egress", "nothing is allocated to %q: set egress, ingress or total", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// Provision has the quota judged from now on.
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
	terms, err := p.spec(policy.ScopeOf(ctx), gateway)
	if err != nil {
		return err
	}
	p.account, p.leave, err = joinQuota(ctx, terms)
	return err
}

// gatewayOf is the name of the gateway that a policy stands on, or what it is told
// instead.
func gatewayOf(ctx caddy.Context, option string) string {
	return cmp.Or(policy.ScopeOf(ctx).Gateway, option, stats.DefaultName)
}

// Validate implements caddy.Validator.
func (p *Quota) Validate() error { return p.Check() }

// Cleanup lets go of the account.
func (p *Quota) Cleanup() error {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
	return nil
}

var consumerKey = placeholder.ParseKey("{http.auth.user.id}")

// ServeHTTP lets a request through, slows its bodies down, or refuses it. What decides
// has been judged before: on the way of a request, that is a look at it.
func (p *Quota) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	var v *limitState
	if p.Per == perConsumer {
		consumer := consumerKey.Of(r)
		if consumer == "" {
			return next.ServeHTTP(w, r)
		}
		stats.AttributeTo(w, consumer)
		v = p.account.ofConsumer(consumer)
	} else {
		v = p.account.whole.Load()
	}
	if v == nil {
		return next.ServeHTTP(w, r)
	}
	rest := v.until.Sub(p.now())
	switch {
	case rest <= 0: // its period is over, and the next one has not been judged yet
		return next.ServeHTTP(w, r)
	case p.AtLimit == limitThrottle:
		return v.slowDown(w, r, next)
	case p.AtLimit == limitBlock:
		return p.refuse(w, r, v, rest)
	}
	return next.ServeHTTP(w, r)
}

var errUsedUp = errors.New("the quota is used up")

// refuse answers a request that is over the limit. How much there is and how much has
// been used is nobody's business, except for a consumer's own.
func (p *Quota) refuse(w http.ResponseWriter, r *http.Request, v *limitState, rest time.Duration) error {
	seconds := strconv.FormatInt(int64((rest+time.Second-1)/time.Second), 10)
	header := w.Header()
	header.Set("Retry-After", seconds)
	header.Set("X-Quota-Reset", seconds)
	if p.Per == perConsumer {
		header.Set("X-Quota-Limit", strconv.FormatInt(v.limit, 10))
		header.Set("X-Quota-Used", strconv.FormatInt(v.used, 10))
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
