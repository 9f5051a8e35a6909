// Package fallback implements the handler rgate_fallback, which serves a substitute
// response when the backend fails.
package fallback

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/sharing"
)

func init() {
	caddy.RegisterModule(new(Fallback))
	httpcaddyfile.RegisterHandlerDirective("rgate_fallback", policy.Directive[Fallback])
}

// Fallback serves a substitute response if the backend is down or too slow, or if a
// circuit breaker or a full queue rejects the request. It serves the last good response,
// the response of another backend, or a fixed response, in this order. If none is
// available, it returns the failure.
//
// It sets the header field X-Gateway-Fallback and the placeholder `{http.rgate.fallback}`
// to `cached`, to the name of the other backend, or to `response`.
type Fallback struct {
	policy.Base

	// The maximum age of a stored response. The last good response to a GET request is
	// stored if a shared cache may store it: without Set-Cookie, private, no-store and
	// no-cache. Responses for a single user are stored only if they are public. Stored
	// responses are used for GET and HEAD. Default: 0. Responses are not stored.
	Cached caddy.Duration `json:"cached,omitempty"`

	// The maximum memory for stored responses, for each backend. Default: 64MiB.
	MaxBytes options.Size `json:"max_bytes,omitempty" default:"64MiB"`

	// The maximum size of a response body that is stored, at most `max_bytes`. Default:
	// 1MiB, or `max_bytes` if it is less.
	MaxBody options.Size `json:"max_body,omitempty" default:"1MiB"`

	// An additional part of the key of stored responses, with placeholders such as
	// `{http.request.header.X-Tenant}`. The key always contains route, scheme, host, path
	// and query. Responses to requests with a field, cookie, certificate or user in `key`
	// may be stored. Default: none.
	Key string `json:"key,omitempty"`

	// Names of request header fields that do not affect responses, such as `X-Org-Id`.
	// `X-Acme-*` matches all fields with the prefix. `*` matches all unknown fields and
	// credentials, except `Authorization`, `Cookie` and identity fields. A request field
	// is unknown if it is neither well-known nor in this list, in `key` or in `Vary`.
	// Responses to requests with unknown fields are stored only if they are public.
	// Default: none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

	// The name of another backend of the gateway. It receives GET, HEAD and OPTIONS
	// requests. It receives other requests only if nothing was sent to the first backend.
	// Default: the name of the backend followed by `-fallback`, if that backend exists.
	Backend string `json:"backend,omitempty" caddyfile:"arg"`

	// A fixed response. Default: none.
	Response *Response `json:"response,omitempty"`

	// Additional response statuses that count as failures: 500 to 599, or `5xx` for all
	// of them. Default: none.
	Statuses []string `json:"statuses,omitempty"`

	position policy.Position
	failing  failure.Statuses
	stores   lease.Set[fallbackPlace, *staleStore]
	sharing  *sharing.Rules
	missing  sync.Once // logs an unknown backend once
}

// Response is a fixed response.
type Response struct {
	// The body. Without a Content-Type in `headers`, the type is application/json if the
	// body is JSON, and text/plain otherwise. Default: empty.
	Body string `json:"body,omitempty" caddyfile:"arg"`

	// The status, from 200 to 599. Default: 503.
	StatusCode int `json:"status_code,omitempty" caddyfile:"arg" default:"503"`

	// Header fields by name. Default: none.
	Headers map[string]string `json:"headers,omitempty"`
}

const (
	defaultKeptBytes = 64 << 20
	defaultKeptBody  = 1 << 20

	fallbackSuffix = "-fallback"
	fallbackHeader = "X-Gateway-Fallback"

	byCached   = "cached"
	byResponse = "response"

	// fallbackVar is a variable of requests at a fallback backend. It prevents a second
	// fallback backend.
	fallbackVar = "rgate.fallback"
)

// CaddyModule returns the Caddy module information.
func (*Fallback) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_fallback",
		New: func() caddy.Module { return new(Fallback) },
	}
}

// Provision sets up the policy. The stores are acquired by requests.
func (f *Fallback) Provision(ctx caddy.Context) error {
	if err := f.Start(ctx, "fallback"); err != nil {
		return err
	}
	if f.Cached > 0 {
		f.MaxBytes = cmp.Or(f.MaxBytes, defaultKeptBytes)
		f.MaxBody = cmp.Or(f.MaxBody, min(defaultKeptBody, f.MaxBytes))
	}
	if f.Response != nil {
		f.Response.StatusCode = cmp.Or(f.Response.StatusCode, http.StatusServiceUnavailable)
	}
	f.sharing = sharing.New(f.Key, f.IgnoreFields)
	if policy.ScopeOf(ctx).Level == "" {
		for _, warning := range f.Warnings(nil) {
			ctx.Logger().Warn(warning)
		}
	}
	f.failing, _ = failure.ParseStatuses(f.Statuses, nil) // validated by Check
	f.position = policy.ContentPositionOf(ctx, "fallback")
	return fallbacks.Register(ctx)
}

// Check returns an error for the first invalid option.
func (f *Fallback) Check() error {
	switch {
	case f.Cached < 0:
		return options.Errorf("cached", "invalid cached %v: must not be negative", time.Duration(f.Cached))
	case f.MaxBytes < 0:
		return options.Errorf("max_bytes", "invalid max_bytes %d: must not be negative", f.MaxBytes)
	case f.MaxBody < 0:
		return options.Errorf("max_body", "invalid max_body %d: must not be negative", f.MaxBody)
	case f.Cached == 0 && f.MaxBytes != 0:
		return options.Errorf("max_bytes", "max_bytes requires cached: set cached, such as 10m, or remove max_bytes")
	case f.Cached == 0 && f.MaxBody != 0:
		return options.Errorf("max_body", "max_body requires cached: set cached, such as 10m, or remove max_body")
	case f.Cached == 0 && f.Key != "":
		return options.Errorf("key", "key requires cached: set cached, such as 10m, or remove key")
	case f.Cached == 0 && f.IgnoreFields != nil:
		return options.Errorf("ignore_fields", "ignore_fields requires cached: set cached, such as 10m, or remove ignore_fields")
	case placeholder.IsUnclosed(f.Key):
		return placeholder.UnclosedError("key", f.Key)
	case f.Key != "" && !placeholder.Has(f.Key):
		return options.Errorf("key", "invalid key %q: must have a placeholder, such as {http.request.header.X-Tenant}", f.Key)
	case f.MaxBody > cmp.Or(f.MaxBytes, defaultKeptBytes):
		return options.Errorf("max_body", "invalid max_body %d: must be at most %d, the value of max_bytes", f.MaxBody, cmp.Or(f.MaxBytes, defaultKeptBytes))
	case strings.ContainsAny(f.Backend, "{} \t"):
		return options.Errorf("backend", "invalid backend %q: must be the name of a backend", f.Backend)
	}
	if err := placeholder.CheckKey("key", f.Key); err != nil {
		return err
	}
	if err := sharing.CheckIgnoredFields(f.IgnoreFields); err != nil {
		return err
	}
	if _, err := failure.ParseStatuses(f.Statuses, nil); err != nil {
		return err
	}
	if f.Response == nil {
		return nil
	}
	return f.Response.check()
}

// Validate implements caddy.Validator.
func (f *Fallback) Validate() error { return f.Check() }

// Warnings implements policy.Warner.
func (f *Fallback) Warnings([]caddyhttp.MiddlewareHandler) []string {
	if f.Off() || f.Cached == 0 || f.IgnoreFields != nil || f.Key != "" {
		return nil
	}
	return []string{"responses to requests with credentials or unknown header fields are stored for a failing backend only if they are public or their Vary lists the field: " +
		"list fields that do not change responses in ignore_fields of fallback, or write `ignore_fields: []` if there are none; earlier versions stored more"}
}

// Cleanup releases the stored responses.
func (f *Fallback) Cleanup() error {
	f.stores.Release()
	f.position.Release()
	return nil
}

// failedCall describes a failure of the backend.
type failedCall struct {
	status int   // status of the discarded response; 0 if none
	err    error // nil if the backend responded
}

// ServeHTTP forwards a request and serves a fallback if the request fails.
func (f *Fallback) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if f.Off() {
		return next.ServeHTTP(w, r)
	}
	state := policy.RequestStateOf(r)
	if state == nil {
		policy.MarkFallbackPresent(r)
	}
	c := fallbackCalls.Get().(*fallbackCall)
	c.policy, c.w, c.r, c.state = f, w, r, state
	c.ResponseWriter = w
	c.before.Set(w.Header())
	c.body = unreadBody(r, state)
	if asked := policy.TargetOf(r); f.Cached > 0 && (sharing.IsRead(&asked) || !sharing.IsSafeMethod(r.Method)) {
		c.store, c.q = f.storeAt(r), f.sharing.Read(r, true)
		if c.q.Credential != "" || c.q.Unknown != "" {
			c.q.Header = maps.Clone(r.Header) // copy of the client's header
		}
		c.setKey()
	}
	returned := false
	defer func() {
		// After a panic, another goroutine may still use the writer.
		if returned && !c.hijacked {
			c.reset()
			fallbackCalls.Put(c)
		}
	}()
	var err error
	if c.store == nil && len(f.Statuses) == 0 {
		err = next.ServeHTTP(w, r) // the response is not examined
	} else {
		err = c.pass(next)
	}
	failed := failedCall{c.discarded, err}
	switch {
	case c.discarded != 0 || isFailure(r, err) && !c.began:
		if r.Context().Err() == nil {
			err = c.respond(failed)
		}
	case err == nil:
		c.finish()
	}
	returned = true
	return err
}

// pass calls the next handler. It recovers from http.ErrAbortHandler if the response was
// discarded.
func (c *fallbackCall) pass(next caddyhttp.Handler) error {
	returned := false
	defer func() {
		if !returned && c.discarded != 0 {
			if cause := recover(); cause != http.ErrAbortHandler {
				panic(cause)
			}
		}
	}()
	err := next.ServeHTTP(c, c.r)
	returned = true
	return err
}

// isFailure reports whether an error means that the backend has not responded.
func isFailure(r *http.Request, err error) bool {
	failed, ok := errors.AsType[caddyhttp.HandlerError](err)
	if !ok || failure.ClassifyRequest(r, 0, err).Status < 500 {
		return false // no status, or caused by the client
	}
	switch failed.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	_, ok = errors.AsType[failure.Error](err)
	return ok && failed.StatusCode >= 500
}

// nothingSent reports whether the failure occurred before data was sent to the backend.
func (c *fallbackCall) nothingSent(err error) bool {
	return err != nil && failure.ClassifyRequest(c.r, 0, err).Unsent
}

// respond serves a fallback if one is available, and otherwise the failure.
func (c *fallbackCall) respond(failed failedCall) error {
	header := c.w.Header()
	after := header.Clone()
	if stale := c.stored(); stale != nil {
		c.before.Restore(header)
		header[fallbackHeader] = []string{byCached}
		c.report(byCached, failed)
		stale.write(c.w, c.r, time.Now(), failed.status)
		return nil
	}
	if name := c.otherBackend(failed); name != "" {
		c.before.Restore(header)
		header[fallbackHeader] = []string{name}
		caddyhttp.SetVar(c.r.Context(), fallbackVar, true)
		c.body.Give(c.r)
		_, err := c.state.Forward(name, c.w, c.r)
		caddyhttp.SetVar(c.r.Context(), fallbackVar, nil)
		if !isFailure(c.r, err) {
			c.report(name, failed)
			return err
		}
	}
	if c.policy.Response != nil {
		c.before.Restore(header)
		if retry := after["Retry-After"]; retry != nil {
			header["Retry-After"] = retry
		}
		header[fallbackHeader] = []string{byResponse}
		c.report(byResponse, failed)
		c.policy.Response.write(c.w, c.r)
		return nil
	}
	clear(header)
	for name, values := range after {
		header[name] = values
	}
	return c.giveUp(failed)
}

// giveUp returns the failure as an error.
func (c *fallbackCall) giveUp(failed failedCall) error {
	err := failed.err
	if failed.status != 0 {
		err = caddyhttp.Error(failed.status, failure.Error{Err: fmt.Errorf("the backend responded with status %d", failed.status)})
	}
	if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && c.state == nil && !policy.HasErrorRoutes(c.r.Context()) {
		if _, ok := errors.AsType[failure.Error](err); ok { // outside of a gateway, no error handler writes a body
			policy.WriteStatus(c.w, c.r, handlerErr.StatusCode)
			return nil
		}
	}
	return err
}

// otherBackend returns the name of the fallback backend for the request, or "".
func (c *fallbackCall) otherBackend(failed failedCall) string {
	directory, ok := c.state.(policy.BackendDirectory)
	if !ok || caddyhttp.GetVar(c.r.Context(), fallbackVar) != nil {
		return ""
	}
	own, name := c.state.RouteInfo().Backend, c.policy.Backend
	if name == "" {
		name = own + fallbackSuffix
	}
	if name == own {
		return ""
	}
	if !directory.HasBackend(name) {
		if c.policy.Backend != "" {
			c.policy.missing.Do(func() {
				c.policy.Logger().Error("unknown fallback backend", zap.String("backend", name))
			})
		}
		return ""
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		// The request could be executed twice.
		if failed.status != 0 || !c.nothingSent(failed.err) {
			return ""
		}
	}
	if !c.body.Untouched() {
		return ""
	}
	return name
}

// report records the fallback that was served in metrics, the log and a placeholder.
func (c *fallbackCall) report(by string, failed failedCall) {
	fallbacks.Count(c.r, by)
	if repl, ok := c.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.fallback", by)
	}
	if entry := c.policy.Logger().Check(zapcore.WarnLevel, "backend failed, using its fallback"); entry != nil {
		place, status, cause := policy.RouteInfoOf(c.r), failed.status, failed.err
		if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](cause); ok {
			status, cause = handlerErr.StatusCode, handlerErr.Err
		}
		entry.Write(zap.String("backend", place.Backend), zap.String("route", place.Route),
			zap.String("by", by), zap.Int("status", status), zap.Error(cause))
	}
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Fallback)(nil)
	_ caddy.Validator    = (*Fallback)(nil)
	_ caddy.CleanerUpper = (*Fallback)(nil)
	_ policy.Module      = (*Fallback)(nil)
	_ policy.Warner      = (*Fallback)(nil)
)
