package bandwidth

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/bandwidth/notify"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Notify))
	httpcaddyfile.RegisterHandlerDirective("rgate_notify", policy.Directive[Notify])
}

// Notify sends messages about the thresholds of quotas by mail, by a webhook, or both. It
// belongs to a gateway and does not change requests.
//
// Messages are stored in the database of `bandwidth` before they are sent, and are retried
// until they have been delivered, also after a restart. Of several gateways on one database,
// one sends a message.
type Notify struct {
	policy.Base

	// The mail server and the recipients. Default: no mail.
	SMTP *notify.SMTP `json:"smtp,omitempty"`

	// The URL that receives JSON, or a map of options. Default: no webhook.
	Webhook *notify.Webhook `json:"webhook,omitempty"`

	// A URL at the end of messages, such as that of the dashboard. Default: none.
	Link string `json:"link,omitempty"`

	// Outside of a gateway, the name of the statistics that the quotas belong to.
	// Default: `rgate_stats`.
	Gateway string `json:"gateway,omitempty"`

	leave func()
}

// CaddyModule returns the Caddy module information.
func (*Notify) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_notify",
		New: func() caddy.Module { return new(Notify) },
	}
}

// Check implements policy.Module.
func (p *Notify) Check() error {
	if p.Off() {
		return nil
	}
	if p.SMTP == nil && p.Webhook == nil {
		return options.Errorf("smtp", "notify has no effect: set smtp, webhook or both")
	}
	if p.Link != "" && !notify.IsURL(p.Link) {
		return options.Errorf("link", "invalid link %q: must be a URL such as https://gateway.example.com/dashboard", p.Link)
	}
	if p.SMTP != nil {
		if err := p.SMTP.Check(); err != nil {
			return err
		}
	}
	if p.Webhook != nil {
		if err := p.Webhook.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Provision makes the gateway's notifier use the channels.
func (p *Notify) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "notify"); err != nil {
		return err
	}
	if p.Off() {
		return nil
	}
	if err := p.Check(); err != nil {
		return err
	}
	channels, err := notify.Open(p.SMTP, p.Webhook, p.Link)
	if err != nil {
		return err
	}
	p.leave, err = joinNotify(ctx, gatewayOf(ctx, p.Gateway), channels)
	return err
}

// joinNotify makes the notifier of a gateway deliver by channels, until a newer
// configuration brings others. It publishes their health.
func joinNotify(ctx caddy.Context, gateway string, channels *notify.Channels) (leave func(), err error) {
	e, release, err := holdEvaluator(ctx, gateway)
	if err != nil {
		return nil, err
	}
	left := e.notifier.Use(channels)
	var ends []func()
	for _, name := range channels.Names() {
		ends = append(ends, status.Dependencies.Publish(status.Process{}, func() status.Dependency { return e.notifier.Health(channels, name) }))
	}
	return func() {
		for _, end := range ends {
			end()
		}
		left()
		release()
	}, nil
}

// Validate implements caddy.Validator.
func (p *Notify) Validate() error { return p.Check() }

// Cleanup ends the use of the channels.
func (p *Notify) Cleanup() error {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
	return nil
}

// Serves implements policy.Endpoint. It serves no path.
func (*Notify) Serves(string) bool { return false }

// ServeHTTP passes requests on.
func (*Notify) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if next == nil {
		return nil
	}
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Notify)(nil)
	_ caddy.Validator    = (*Notify)(nil)
	_ caddy.CleanerUpper = (*Notify)(nil)
	_ policy.Endpoint    = (*Notify)(nil)
)
