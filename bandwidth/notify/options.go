package notify

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
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
)

// SMTP configures a mail server and the recipients.
//
// In `username`, `password` and `ca_file`, placeholders such as `{env.SMTP_PASSWORD}` and
// `{file./run/secrets/smtp}` are replaced once, when the configuration is loaded.
type SMTP struct {
	// The server, as host or host:port. Required. Default port: 587 with `tls: starttls`,
	// 465 with `implicit`, 25 with `none`.
	Address string `json:"address,omitempty" caddyfile:"arg"`

	// The encryption: `starttls`, `implicit` or `none`. If the server does not support
	// it, deliveries fail. Default: `starttls`.
	TLS string `json:"tls,omitempty"`

	// The user name for authentication. The first of SCRAM, PLAIN, LOGIN and CRAM-MD5 that
	// the server offers is used. Requires TLS unless the server is on the loopback interface. Default: no
	// authentication.
	Username string `json:"username,omitempty"`

	// The password. Required with `username`.
	Password string `json:"password,omitempty"`

	// The sender, such as `rgate@example.com` or `Gateway <rgate@example.com>`.
	// Required.
	From string `json:"from,omitempty"`

	// The recipients. Required.
	To []string `json:"to,omitempty"`

	// A PEM file of trusted certificates, in addition to the system's. Default: none.
	CAFile string `json:"ca_file,omitempty"`

	// The timeout of a delivery: 1s to 5m. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty" default:"30s"`
}

// Webhook configures a URL that receives messages as JSON in POST requests.
//
// In `url` and the values of `headers`, placeholders such as `{env.WEBHOOK_URL}` are
// replaced once, when the configuration is loaded.
type Webhook struct {
	// The http:// or https:// URL. Required.
	URL string `json:"url,omitempty" caddyfile:"arg"`

	// Header fields of the requests, such as `Authorization`. Default: none.
	Headers map[string]string `json:"headers,omitempty"`

	// The timeout of a request: 1s to 5m. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty" default:"30s"`
}

// UnmarshalJSON accepts a URL or a map of options.
func (o *Webhook) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &o.URL) == nil {
		return nil
	}
	type plain Webhook // without UnmarshalJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode((*plain)(o))
}

// The values of SMTP.TLS.
const (
	tlsStart    = "starttls"
	tlsImplicit = "implicit"
	tlsNone     = "none"
)

var smtpPorts = map[string]string{tlsStart: "587", tlsImplicit: "465", tlsNone: "25"}

const defaultSendTimeout = 30 * time.Second

func checkTimeout(option string, timeout caddy.Duration) error {
	if d := time.Duration(timeout); d != 0 && (d < time.Second || d > 5*time.Minute) {
		return options.Errorf(option, "invalid timeout %v: must be 1s to 5m", d)
	}
	return nil
}

// Check returns an error for the first invalid option, or nil.
func (o *SMTP) Check() error {
	host, _, err := o.server()
	switch {
	case o.Address == "":
		return options.Errorf("smtp.address", "address is required: set it to a mail server such as mail.example.com:587")
	case err != nil:
		return options.Errorf("smtp.address", "invalid address %q: must be a host with an optional port, such as mail.example.com:587", o.Address)
	case smtpPorts[cmp.Or(o.TLS, tlsStart)] == "":
		return options.Errorf("smtp.tls", "unknown tls %q: use starttls, implicit or none", o.TLS)
	case o.Username != "" && o.Password == "":
		return options.Errorf("smtp.password", "username requires password: set password, such as {env.SMTP_PASSWORD}, or remove username")
	case o.Username == "" && o.Password != "":
		return options.Errorf("smtp.username", "password requires username: set username or remove password")
	case o.Username != "" && o.TLS == tlsNone && !isLoopback(host):
		return options.Errorf("smtp.tls", "username and tls: none cannot be combined, because the password would be sent in plain text: use starttls or implicit")
	case o.From == "":
		return options.Errorf("smtp.from", "from is required: set a sender such as rgate@example.com")
	case len(o.To) == 0:
		return options.Errorf("smtp.to", "to is required: set recipients such as ops@example.com")
	}
	if _, err := parseMailAddress(o.From); err != nil {
		return options.Errorf("smtp.from", "invalid from %q: must be an ASCII mail address such as rgate@example.com", o.From)
	}
	for i, to := range o.To {
		if _, err := parseMailAddress(to); err != nil {
			return options.Errorf(fmt.Sprintf("smtp.to[%d]", i), "invalid recipient %q: must be an ASCII mail address such as ops@example.com", to)
		}
	}
	return checkTimeout("smtp.timeout", o.Timeout)
}

// server returns the host and the port of the address.
func (o *SMTP) server() (host, port string, err error) {
	if host, port, err = net.SplitHostPort(o.Address); err != nil {
		host, port, err = strings.Trim(o.Address, "[]"), smtpPorts[cmp.Or(o.TLS, tlsStart)], nil
	} else if n, bad := strconv.ParseUint(port, 10, 16); bad != nil || n == 0 {
		err = fmt.Errorf("invalid port %q: must be 1 to 65535", port)
	}
	if host == "" || strings.ContainsAny(host, "/ @{}") {
		err = fmt.Errorf("invalid host %q: must be a host name or an IP address", host)
	}
	return host, port, err
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var errNotASCII = errors.New("mail addresses with non-ASCII characters are not supported")

func parseMailAddress(text string) (*netmail.Address, error) {
	address, err := netmail.ParseAddress(text)
	if err == nil && strings.ContainsFunc(address.Address, func(c rune) bool { return c > '~' || c <= ' ' }) {
		err = errNotASCII
	}
	return address, err
}

// Check returns an error for the first invalid option, or nil.
func (o *Webhook) Check() error {
	switch {
	case o.URL == "":
		return options.Errorf("webhook.url", "url is required: set it to a URL such as https://hooks.example.com/quota")
	case !IsURL(o.URL) && !placeholder.Has(o.URL): // errors do not quote the URL: it may contain a secret
		return options.Errorf("webhook.url", "invalid url: must be a URL such as https://hooks.example.com/quota")
	}
	for name, value := range o.Headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return options.Errorf("webhook.headers."+name, "invalid header field %q: must be a name such as Authorization, and a value without control characters", name)
		}
	}
	return checkTimeout("webhook.timeout", o.Timeout)
}

// IsURL reports whether text is an http or https URL with a host.
func IsURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// mailer returns a mailer for the options, with placeholders replaced.
func (o *SMTP) mailer() (*mailer, error) {
	host, port, err := o.server()
	if err != nil {
		return nil, err
	}
	m := &mailer{
		address: net.JoinHostPort(host, port), host: host, tls: cmp.Or(o.TLS, tlsStart),
		timeout: cmp.Or(time.Duration(o.Timeout), defaultSendTimeout),
	}
	if m.username, err = options.ReplaceTrimmed("smtp.username", o.Username); err != nil {
		return nil, err
	}
	if m.password, err = options.ReplaceTrimmed("smtp.password", o.Password); err != nil {
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
	file, err := options.ReplaceTrimmed("smtp.ca_file", o.CAFile)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, options.Errorf("smtp.ca_file", "invalid ca_file: %v: must be a readable PEM file of certificates", err)
	}
	if m.roots, err = x509.SystemCertPool(); err != nil {
		m.roots = x509.NewCertPool()
	}
	if !m.roots.AppendCertsFromPEM(pem) {
		return nil, options.Errorf("smtp.ca_file", "invalid ca_file %q: must contain a certificate in PEM format", file)
	}
	return m, nil
}

// hook returns a hook for the options, with placeholders replaced.
func (o *Webhook) hook() (h *hook, err error) {
	h = &hook{header: make(http.Header), timeout: cmp.Or(time.Duration(o.Timeout), defaultSendTimeout)}
	if h.url, err = options.ReplaceTrimmed("webhook.url", o.URL); err != nil {
		return nil, err
	}
	if !IsURL(h.url) {
		return nil, options.Errorf("webhook.url", "invalid value of the placeholder in url: must be a URL such as https://hooks.example.com/quota")
	}
	for name, text := range o.Headers {
		value, err := options.ReplaceTrimmed("webhook.headers."+name, text)
		if err != nil {
			return nil, err
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, options.Errorf("webhook.headers."+name, "invalid value of the placeholder: must not contain control characters")
		}
		h.header.Set(name, value)
	}
	return h, nil
}
