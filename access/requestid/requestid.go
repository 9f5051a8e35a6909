// Package requestid implements the request_id policy, which adds an ID to each request and
// response.
package requestid

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(RequestID))
	httpcaddyfile.RegisterHandlerDirective("rgate_request_id", policy.Directive[RequestID])
}

// RequestID is a handler that assigns an ID to each request, a version 7 UUID. It sends
// the ID to the backend and to the client in a header field. Values that they send in
// this field are replaced.
//
// The `traceparent` field (https://www.w3.org/TR/trace-context/) is forwarded unchanged.
//
// The following placeholders are also fields of the access log:
//
// Placeholder | Field | Meaning
// ------------|-------|--------
// `{http.rgate.request_id}` | `request_id` | The ID
// `{http.rgate.trace_id}` | `trace_id` | The trace ID in `traceparent`, if it is valid
type RequestID struct {
	policy.Base

	// The header field that contains the ID in requests and responses. Default:
	// `X-Request-ID`.
	Header string `json:"header,omitempty"`

	// Whether to keep an ID sent by the client. It must have up to 128 letters, digits
	// and characters from `-_.:+/=@`. Other IDs are replaced. Default: false.
	Trust bool `json:"trust,omitempty"`

	field string // in canonical form
}

const requestIDVar = "rgate.request_id"

// CaddyModule returns the Caddy module information.
func (*RequestID) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_request_id",
		New: func() caddy.Module { return new(RequestID) },
	}
}

// Provision sets the defaults.
func (p *RequestID) Provision(ctx caddy.Context) error {
	if p.Header == "" {
		p.Header = "X-Request-ID"
	}
	p.field = http.CanonicalHeaderKey(p.Header)
	return p.Start(ctx, "request_id")
}

// reservedFields lists the header fields that an ID must not overwrite.
var reservedFields = []string{
	"Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Host", "Keep-Alive",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Set-Cookie", "Te", "Traceparent", "Trailer",
	"Transfer-Encoding", "Upgrade", trust.HeaderGatewayService, trust.HeaderUserID,
}

// Check returns the first invalid option as an *options.Error.
func (p *RequestID) Check() error {
	switch {
	case p.Header == "":
	case !httpguts.ValidHeaderFieldName(p.Header) || strings.Contains(p.Header, "_"):
		return options.Errorf("header", "invalid header field name %q: use a name such as X-Request-ID", p.Header)
	case slices.Contains(reservedFields, http.CanonicalHeaderKey(p.Header)),
		strings.HasPrefix(http.CanonicalHeaderKey(p.Header), trust.ConsumerPrefix):
		return options.Errorf("header", "header field %s is reserved: use a name such as X-Request-ID", p.Header)
	}
	return nil
}

// Validate implements caddy.Validator.
func (p *RequestID) Validate() error { return p.Check() }

// ServeHTTP adds the ID to the request and the response.
func (p *RequestID) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	id, trace := p.idOf(r), ""
	r.Header[p.field] = []string{id}
	if parents := r.Header["Traceparent"]; len(parents) == 1 {
		trace = traceID(parents[0])
	}
	publishIDs(r, id, trace)
	hw := httpx.NewHeaderWriter(w, p, id)
	err := next.ServeHTTP(hw, r)
	hw.Close()
	return err
}

// idOf returns the ID set by an earlier policy, the ID sent by the client if it is
// trusted, or a new ID.
func (p *RequestID) idOf(r *http.Request) string {
	if id, ok := caddyhttp.GetVar(r.Context(), requestIDVar).(string); ok {
		return id
	}
	if p.Trust {
		if said := r.Header[p.field]; len(said) == 1 && validRequestID(said[0]) {
			return said[0]
		}
	}
	return newRequestID(time.Now())
}

// publishIDs makes the IDs available to later handlers, placeholders and the access log.
func publishIDs(r *http.Request, id, trace string) {
	ctx := r.Context()
	var value any = id // a single allocation for both uses
	caddyhttp.SetVar(ctx, requestIDVar, value)
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.request_id", value)
		if trace != "" {
			repl.Set("http.rgate.trace_id", trace)
		}
	}
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil || server.Logs == nil {
		return
	}
	if fields, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Set(zap.String("request_id", id))
		if trace != "" {
			fields.Set(zap.String("trace_id", trace))
		}
	}
}

// EditHeader sets the ID in the response header.
func (p *RequestID) EditHeader(header http.Header, id string, values *httpx.FieldValues) {
	header[p.field] = values.Of(id)
}

// Interface guards
var (
	_ caddy.Provisioner = (*RequestID)(nil)
	_ caddy.Validator   = (*RequestID)(nil)
	_ policy.Module     = (*RequestID)(nil)
)
