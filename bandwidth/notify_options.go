package bandwidth

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	netmail "net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
)

// SMTP is the server that mail goes through, and who gets it.
//
// In `username`, `password` and `ca_file`, placeholders such as `{env.SMTP_PASSWORD}`
// and `{file./run/secrets/smtp}` are filled in once, at the start.
type SMTP struct {
	// The server, with a port or without: that of `tls` is 587, 465 or 25. Required.
	Address string `json:"address,omitempty" caddyfile:"arg"`

	// How the connection is encrypted: `starttls`, `implicit` from its beginning, or
	// `none`. If it cannot be, nothing is sent. Default: `starttls`.
	TLS string `json:"tls,omitempty"`

	// Whom to authenticate as, by the safest mechanism that the server offers.
	// Needs TLS, unless the server is on this machine. Default: nobody.
	Username string `json:"username,omitempty"`

	// Required with `username`.
	Password string `json:"password,omitempty"`

	// The sender, such as `rgate@example.com` or `Gateway <rgate@example.com>`.
	// Required.
	From string `json:"from,omitempty"`

	// The recipients. Required.
	To []string `json:"to,omitempty"`

	// A file of certificates in PEM that are trusted besides those that the system
	// trusts. Default: none.
	CAFile string `json:"ca_file,omitempty"`

	// How long delivering a message may take, 1s to 5m. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty" default:"30s"`
}

// Webhook is an address that takes JSON in a POST.
//
// In `url` and the values of `headers`, placeholders such as `{env.WEBHOOK_URL}` are
// filled in once, at the start.
type Webhook struct {
	// The address. Required.
	URL string `json:"url,omitempty" caddyfile:"arg"`

	// Header fields to send with it, such as `Authorization`. Default: none.
	Headers map[string]string `json:"headers,omitempty"`

	// How long a request may take, 1s to 5m. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty" default:"30s"`
}

// UnmarshalJSON reads an address, or a map of all options.
func (o *Webhook) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &o.URL) == nil {
		return nil
	}
	type plain Webhook // without this method
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode((*plain)(o))
}

// How a connection to a server of mail is encrypted.
const (
	tlsStart    = "starttls"
	tlsImplicit = "implicit"
	tlsNone     = "none"
)

var smtpPorts = map[string]string{tlsStart: "587", tlsImplicit: "465", tlsNone: "25"}

const defaultSendTimeout = 30 * time.Second

func checkTimeout(option string, timeout caddy.Duration) error {
	if d := time.Duration(timeout); d != 0 && (d < time.Second || d > 5*time.Minute) {
		return options.Errorf(option, "timeout %v is out of range: use 1s to 5m", d)
	}
	return nil
}

func (o *SMTP) check() error {
	host, _, err := o.server()
	switch {
	case o.Address == "":
		return options.Errorf("smtp.address", "address is missing: say which server takes mail, such as mail.example.com:587")
	case err != nil:
		return options.Errorf("smtp.address", "%q is not the address of a server: use one such as mail.example.com:587", o.Address)
	case smtpPorts[cmp.Or(o.TLS, tlsStart)] == "":
		return options.Errorf("smtp.tls", "there is no %q: use starttls, implicit or none", o.TLS)
	case o.Username != "" && o.Password == "":
		return options.Errorf("smtp.password", "password is missing: set it, such as {env.SMTP_PASSWORD}, or leave username out")
	case o.Username == "" && o.Password != "":
		return options.Errorf("smtp.username", "username is missing: set it, or leave password out")
	case o.Username != "" && o.TLS == tlsNone && !isLoopback(host):
		return options.Errorf("smtp.tls", "the password would be sent for all to read: use starttls or implicit")
	case o.From == "":
		return options.Errorf("smtp.from", "from is missing: say who sends, such as rgate@example.com")
	case len(o.To) == 0:
		return options.Errorf("smtp.to", "to is missing: say who gets the mail, such as ops@example.com")
	}
	if _, err := parseMailAddress(o.From); err != nil {
		return options.Errorf("smtp.from", "%q is not an address of mail: use one such as rgate@example.com", o.From)
	}
	for i, to := range o.To {
		if _, err := parseMailAddress(to); err != nil {
			return options.Errorf(fmt.Sprintf("smtp.to[%d]", i), "%q is not an address of mail: use one such as ops@example.com", to)
		}
	}
	return checkTimeout("smtp.timeout", o.Timeout)
}

// server returns the host and port that the address is of.
func (o *SMTP) server() (host, port string, err error) {
	if host, port, err = net.SplitHostPort(o.Address); err != nil {
		host, port, err = strings.Trim(o.Address, "[]"), smtpPorts[cmp.Or(o.TLS, tlsStart)], nil
	}
	if n, bad := strconv.ParseUint(port, 10, 16); port != "" && (bad != nil || n == 0) {
		err = errors.New("no port")
	}
	if host == "" || strings.ContainsAny(host, "/ @{}") {
		err = errors.New("no host")
	}
	return host, port, err
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var errNotASCII = errors.New("letters beyond ASCII need an extension that few servers have")

func parseMailAddress(text string) (*netmail.Address, error) {
	address, err := netmail.ParseAddress(text)
	if err == nil && strings.ContainsFunc(address.Address, func(c rune) bool { return c > '~' || c <= ' ' }) {
		err = errNotASCII
	}
	return address, err
}

func (o *Webhook) check() error {
	switch {
	case o.URL == "":
		return options.Errorf("webhook.url", "url is missing: use an address such as https://hooks.example.com/quota")
	case !isWebAddress(o.URL) && !placeholder.Has(o.URL): // which may have a secret in it
		return options.Errorf("webhook.url", "that is not an address: use one such as https://hooks.example.com/quota")
	}
	for name, value := range o.Headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return options.Errorf("webhook.headers."+name, "%q cannot be sent: use a name such as Authorization, and a value without line breaks", name)
		}
	}
	return checkTimeout("webhook.timeout", o.Timeout)
}

// channels are the ways in which messages go, with everything filled in.
type channels struct {
	mail *mailer
	hook *hook
	link string
}

// channels makes what the options describe.
func (p *Notify) channels() (c *channels, err error) {
	c = &channels{link: p.Link}
	if p.SMTP != nil {
		if c.mail, err = p.SMTP.mailer(); err != nil {
			return nil, err
		}
	}
	if p.Webhook != nil {
		if c.hook, err = p.Webhook.hook(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (o *SMTP) mailer() (*mailer, error) {
	host, port, err := o.server()
	if err != nil {
		return nil, err
	}
	m := &mailer{
		address: net.JoinHostPort(host, port), host: host, tls: cmp.Or(o.TLS, tlsStart),
		timeout: cmp.Or(time.Duration(o.Timeout), defaultSendTimeout),
	}
	if m.username, err = options.ReplacePlaceholders("smtp.username", o.Username); err != nil {
		return nil, err
	}
	if m.password, err = options.ReplacePlaceholders("smtp.password", o.Password); err != nil {
		return nil, err
	}
	if m.from, err = parseMailAddress(o.From); err != nil {
		return nil, err
	}
	for _, text := range o.To {
		to, err := parseMailAddress(text)
		if err != nil {
			return nil, err
		}
		m.to = append(m.to, to)
	}
	if o.CAFile == "" {
		return m, nil
	}
	file, err := options.ReplacePlaceholders("smtp.ca_file", o.CAFile)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, options.Errorf("smtp.ca_file", "%v: name a file of certificates in PEM", err)
	}
	if m.roots, err = x509.SystemCertPool(); err != nil {
		m.roots = x509.NewCertPool()
	}
	if !m.roots.AppendCertsFromPEM(pem) {
		return nil, options.Errorf("smtp.ca_file", "%s has no certificate in it: name a file of certificates in PEM", file)
	}
	return m, nil
}

func (o *Webhook) hook() (h *hook, err error) {
	h = &hook{header: make(http.Header), timeout: cmp.Or(time.Duration(o.Timeout), defaultSendTimeout)}
	if h.url, err = options.ReplacePlaceholders("webhook.url", o.URL); err != nil {
		return nil, err
	}
	if !isWebAddress(h.url) {
		return nil, options.Errorf("webhook.url", "what its placeholder stands for is not an address: use one such as https://hooks.example.com/quota")
	}
	for name, text := range o.Headers {
		value, err := options.ReplacePlaceholders("webhook.headers."+name, text)
		if err != nil {
			return nil, err
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, options.Errorf("webhook.headers."+name, "what its placeholder stands for cannot be sent: use a value without line breaks")
		}
		h.header.Set(name, value)
	}
	return h, nil
}
