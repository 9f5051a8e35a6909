package bandwidth

import (
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Notify))
	httpcaddyfile.RegisterHandlerDirective("rgate_notify", policy.Directive[Notify])
}

// Notify says who hears that a quota has reached a threshold, and how: by mail, by a
// webhook, or both. It stands on a gateway and does nothing to requests.
//
// A message is kept in the account's database before it is sent, and is tried again
// until it has been delivered, also after a restart. Of several gateways on one
// database, one sends it.
type Notify struct {
	policy.Base

	// Mail. Default: none is sent.
	SMTP *SMTP `json:"smtp,omitempty"`

	// What is sent JSON: an address, or a map of options. Default: nothing.
	Webhook *Webhook `json:"webhook,omitempty"`

	// An address that messages lead to, such as that of the dashboard. Default: none.
	Link string `json:"link,omitempty"`

	// Outside of a gateway, the name of the statistics whose account the quotas are
	// about. Default: `rgate_stats`.
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
		return options.Errorf("smtp", "nobody would be told anything: set smtp, webhook or both")
	}
	if p.Link != "" && !isWebAddress(p.Link) {
		return options.Errorf("link", "%q is not an address: use one such as https://gateway.example.com/dashboard", p.Link)
	}
	if p.SMTP != nil {
		if err := p.SMTP.check(); err != nil {
			return err
		}
	}
	if p.Webhook != nil {
		if err := p.Webhook.check(); err != nil {
			return err
		}
	}
	return nil
}

func isWebAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// Provision makes the settings those of the gateway's messages.
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
	channels, err := p.channels()
	if err != nil {
		return err
	}
	p.leave, err = joinNotify(ctx, gatewayOf(ctx, p.Gateway), channels)
	return err
}

// Validate implements caddy.Validator.
func (p *Notify) Validate() error { return p.Check() }

// Cleanup lets go of the settings.
func (p *Notify) Cleanup() error {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
	return nil
}

// Serves implements policy.Endpoint. No request is for it.
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
