// Package security implements the security policy, which adds security header fields to
// responses and limits the size of requests.
package security

import (
	"cmp"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Security))
	httpcaddyfile.RegisterHandlerDirective("rgate_security", policy.Directive[Security])
}

// Security is a handler that adds browser security header fields to responses that lack
// them, and rejects requests that are too large.
//
// The value `off` disables a header field; the backend's value is kept.
type Security struct {
	policy.Base

	// The value of Strict-Transport-Security, which makes browsers use only TLS. It is
	// added to responses over TLS, including TLS reported by a trusted proxy. Default:
	// `max-age=31536000` (one year, without subdomains).
	HSTS string `json:"hsts,omitempty"`

	// The value of X-Content-Type-Options. `nosniff` stops browsers from guessing the
	// content type. Default: `nosniff`.
	ContentTypeOptions string `json:"content_type_options,omitempty"`

	// The value of X-Frame-Options, which restricts the pages that can embed this page in
	// a frame: `DENY` or `SAMEORIGIN`. Default: `SAMEORIGIN`.
	FrameOptions string `json:"frame_options,omitempty"`

	// The value of Referrer-Policy, which restricts the part of the URL that browsers
	// send to other sites in Referer. Default: `strict-origin-when-cross-origin`.
	ReferrerPolicy string `json:"referrer_policy,omitempty"`

	// The value of Content-Security-Policy, which restricts the resources and scripts
	// that a page can load. Default: none.
	ContentSecurityPolicy string `json:"content_security_policy,omitempty"`

	// The value of Permissions-Policy, which restricts the browser features that a page
	// can use. Default: none.
	PermissionsPolicy string `json:"permissions_policy,omitempty"`

	// Whether to remove the header fields that reveal the backend's software: Server,
	// X-Powered-By, X-AspNet-Version, X-AspNetMvc-Version, X-Generator and X-Runtime.
	// Default: false.
	HideServer bool `json:"hide_server,omitempty"`

	// Additional header fields to remove from responses. Default: none.
	Hide []string `json:"hide,omitempty"`

	// The maximum size of a request body, with or without Content-Length. Larger bodies are
	// rejected with 413. Default: 10MiB. 0 disables the limit.
	MaxBody *options.Size `json:"max_body,omitempty"`

	// The maximum size of a request header in HTTP/1.1 format. Larger headers are
	// rejected with 431. The server's own limit, 16KiB by default, applies first.
	// Default: 0, only the server's limit applies.
	MaxHeader options.Size `json:"max_header,omitempty"`

	// The maximum length of the request target (path and query). Longer targets are
	// rejected with 414. Default: 8KiB. 0 disables the limit.
	MaxURL *options.Size `json:"max_url,omitempty"`

	maxBody, maxURL int64 // 0 means no limit
	overTLS, plain  *securityFields
}

const (
	off = "off" // disables a header field

	defaultMaxBody options.Size = 10 << 20
	defaultMaxURL  options.Size = 8 << 10
)

var revealing = []string{
	"Server", "X-Powered-By", "X-Aspnet-Version", "X-Aspnetmvc-Version", "X-Generator", "X-Runtime",
}

// securityFields holds the changes to a response header.
type securityFields struct {
	names, values []string // fields to add; both slices have the same length
	removed       []string
}

// CaddyModule returns the Caddy module information.
func (*Security) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_security",
		New: func() caddy.Module { return new(Security) },
	}
}

// Provision sets the defaults.
func (p *Security) Provision(ctx caddy.Context) error {
	p.HSTS = cmp.Or(p.HSTS, "max-age=31536000")
	p.ContentTypeOptions = cmp.Or(p.ContentTypeOptions, "nosniff")
	p.FrameOptions = cmp.Or(p.FrameOptions, "SAMEORIGIN")
	p.ReferrerPolicy = cmp.Or(p.ReferrerPolicy, "strict-origin-when-cross-origin")
	p.maxBody, p.maxURL = int64(defaultMaxBody), int64(defaultMaxURL)
	if p.MaxBody != nil {
		p.maxBody = int64(*p.MaxBody)
	}
	if p.MaxURL != nil {
		p.maxURL = int64(*p.MaxURL)
	}

	plain := new(securityFields)
	if p.HideServer {
		plain.removed = slices.Clone(revealing)
	}
	for _, name := range p.Hide {
		plain.removed = append(plain.removed, http.CanonicalHeaderKey(name))
	}
	plain.add("X-Content-Type-Options", p.ContentTypeOptions)
	plain.add("X-Frame-Options", p.FrameOptions)
	plain.add("Referrer-Policy", p.ReferrerPolicy)
	plain.add("Content-Security-Policy", p.ContentSecurityPolicy)
	plain.add("Permissions-Policy", p.PermissionsPolicy)
	overTLS := &securityFields{slices.Clone(plain.names), slices.Clone(plain.values), plain.removed}
	overTLS.add("Strict-Transport-Security", p.HSTS)
	p.plain, p.overTLS = plain, overTLS
	return p.Start(ctx, "security")
}

func (f *securityFields) add(name, value string) {
	if value != "" && value != off {
		f.names, f.values = append(f.names, name), append(f.values, value)
	}
}

// Check returns the first invalid option as an *options.Error.
func (p *Security) Check() error {
	return cmp.Or(
		p.checkHSTS(),
		checkValue("content_type_options", p.ContentTypeOptions, "nosniff"),
		checkValue("frame_options", p.FrameOptions, "DENY", "SAMEORIGIN"),
		checkValue("referrer_policy", p.ReferrerPolicy, "no-referrer", "no-referrer-when-downgrade", "origin",
			"origin-when-cross-origin", "same-origin", "strict-origin", "strict-origin-when-cross-origin", "unsafe-url"),
		checkText("content_security_policy", p.ContentSecurityPolicy),
		checkText("permissions_policy", p.PermissionsPolicy),
		p.checkHide(),
	)
}

// Validate implements caddy.Validator.
func (p *Security) Validate() error { return p.Check() }

var hstsValue = regexp.MustCompile(`(?i)^\s*max-age=\d+\s*(;\s*includeSubDomains\s*)?(;\s*preload\s*)?$`)

func (p *Security) checkHSTS() error {
	if p.HSTS != "" && p.HSTS != off && !hstsValue.MatchString(p.HSTS) {
		return options.Errorf("hsts", "invalid hsts %q: must be a value of Strict-Transport-Security such as %q, or off", p.HSTS, "max-age=31536000; includeSubDomains")
	}
	return nil
}

// checkValue validates the value of a header field with a fixed set of values.
func checkValue(option, value string, known ...string) error {
	if value == "" || value == off || slices.Contains(known, value) {
		return nil
	}
	known = append(known, off)
	return options.Errorf(option, "unknown %s %q%s: use %s", option, value,
		options.Suggest(value, known), strings.Join(known, ", "))
}

func checkText(option, value string) error {
	if !httpguts.ValidHeaderFieldValue(value) {
		return options.Errorf(option, "invalid %s: must be one line without control characters", option)
	}
	return nil
}

func (p *Security) checkHide() error {
	for i, name := range p.Hide {
		if !httpguts.ValidHeaderFieldName(name) {
			return options.Errorf("hide["+strconv.Itoa(i)+"]", "invalid header field name %q: use a name such as X-Powered-By", name)
		}
	}
	return nil
}

// ServeHTTP rejects oversized requests and edits response headers.
func (p *Security) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	fields := p.plain
	if r.TLS != nil || trust.SchemeOf(r) == "https" {
		fields = p.overTLS
	}
	hw := httpx.NewHeaderWriter(w, fields, "")
	err := p.serveLimited(hw, r, next)
	hw.Close()
	return err
}

// EditHeader adds and removes header fields of a response.
func (f *securityFields) EditHeader(header http.Header, _ string, values *httpx.FieldValues) {
	for _, name := range f.removed {
		delete(header, name)
	}
	for i, name := range f.names {
		if len(header[name]) == 0 {
			header[name] = values.Of(f.values[i])
		}
	}
}

// Reasons to reject a request. They are logged and not sent to the client.
var (
	errURLTooLong     = errors.New("the request target is longer than max_url")
	errHeaderTooLarge = errors.New("the request header is larger than max_header")
	errBodyTooLarge   = errors.New("the request body is larger than max_body")
)

// serveLimited enforces the size limits of requests.
func (p *Security) serveLimited(w *httpx.HeaderWriter, r *http.Request, next caddyhttp.Handler) error {
	switch {
	case p.maxURL > 0 && int64(len(r.RequestURI)) > p.maxURL:
		return p.refuse(w, r, http.StatusRequestURITooLong, errURLTooLong)
	case p.MaxHeader > 0 && headerSize(r) > int64(p.MaxHeader):
		return p.refuse(w, r, http.StatusRequestHeaderFieldsTooLarge, errHeaderTooLarge)
	case p.maxBody > 0 && r.ContentLength > p.maxBody:
		return p.refuse(w, r, http.StatusRequestEntityTooLarge, errBodyTooLarge)
	case p.maxBody == 0 || r.ContentLength >= 0 || r.Body == nil || httpx.IsTunnel(r):
		// The server reads at most Content-Length bytes, so no limit is needed.
		return next.ServeHTTP(w, r)
	}
	body := &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, p.maxBody)}
	r.Body = body
	err := next.ServeHTTP(w, r)
	if err != nil && body.exceeded.Load() && !w.Sent() {
		return p.refuse(w, r, http.StatusRequestEntityTooLarge, errBodyTooLarge)
	}
	return err
}

func (p *Security) refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	if c := p.Logger().Check(zapcore.InfoLevel, "request too large"); c != nil {
		c.Write(zap.Int("status", status), zap.String("client", trust.ClientAddress(r)), zap.Error(cause))
	}
	return p.Refuse(w, r, status, cause)
}

// Interface guards
var (
	_ caddy.Provisioner = (*Security)(nil)
	_ caddy.Validator   = (*Security)(nil)
	_ policy.Module     = (*Security)(nil)
)
