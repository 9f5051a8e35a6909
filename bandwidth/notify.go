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

// Notify sends messages about quota thresholds by mail, by webhook, or both. It belongs
// to a gateway and does not change requests.
//
// Messages are stored in the database of `bandwidth` and retried until they are
// delivered, also after a restart. If several gateways share the database, only one of
// them sends a message.
type Notify struct {
	policy.Base

	// The mail server and the recipients. Default: no mail.
	SMTP *notify.SMTP `json:"smtp,omitempty"`

	// The URL that receives messages as JSON, or a map of options. Default: no webhook.
	Webhook *notify.Webhook `json:"webhook,omitempty"`

	// A URL at the end of messages, such as the URL of the dashboard. Default: none.
	Link string `json:"link,omitempty"`

	// The name of the statistics that the quotas belong to, outside of a gateway.
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

// Provision adds the channels to the gateway's notifier.
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

// joinNotify sets the channels of a gateway's notifier, until a newer configuration
// replaces them. It publishes their health.
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

// Cleanup removes the channels from the notifier.
func (p *Notify) Cleanup() error {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
	return nil
}

// Serves implements policy.Endpoint. It always returns false.
func (*Notify) Serves(string) bool { return false }

// ServeHTTP calls the next handler.
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
