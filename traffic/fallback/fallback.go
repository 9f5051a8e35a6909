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

	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/sharing"
)

func init() {
	caddy.RegisterModule(new(Fallback))
	httpcaddyfile.RegisterHandlerDirective("rgate_fallback", policy.Directive[Fallback])
}

// Fallback answers in place of a backend that is down, too slow, or kept from
// requests by a circuit breaker or a full queue: with its last good answer, or else
// with that of another backend, or else with a fixed one. If none of them is to be
// had, the failure stays what it was.
//
// It sets the header field X-Gateway-Fallback and the placeholder
// `{http.rgate.fallback}` to `cached`, to the name of the other backend, or to
// `response`.
type Fallback struct {
	policy.Base

	// How old an answer may become that stands in for a new one. Kept are the last
	// good answers to GET requests, if a shared cache might store them: no
	// Set-Cookie, not private, no-store or no-cache, and not to somebody in
	// particular unless they are public. They answer GET and HEAD. Default: none is
	// kept.
	Cached caddy.Duration `json:"cached,omitempty"`

	// How much memory kept responses may take, for each backend. Default: 64MiB.
	MaxBytes policy.Size `json:"max_bytes,omitempty" default:"64MiB"`

	// How large a body may be that is kept. Default: 1MiB.
	MaxBody policy.Size `json:"max_body,omitempty" default:"1MiB"`

	// What kept responses depend on besides route, scheme, host, path and query: text with
	// placeholders, such as `{http.request.header.X-Tenant}`. A field, cookie, certificate
	// or user that it names does not keep an answer from being kept. Default: none.
	Key string `json:"key,omitempty"`

	// Names of request fields that kept responses do not depend on, such as `X-Org-Id`;
	// `X-Acme-*` for all that begin so, and `*` for all but `Authorization`, `Cookie` and
	// those about users. A field that is not listed here, in `key`, in `Vary` or among the
	// known ones keeps an answer from being kept. Default: none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

	// The name of another backend of the gateway that gets the request: a GET, HEAD
	// or OPTIONS, or any other if nothing was sent to the first one. Default: that
	// backend's name with `-fallback` behind it, if there is one.
	Backend string `json:"backend,omitempty" caddyfile:"arg"`

	// A fixed answer. Default: none.
	Response *FallbackResponse `json:"response,omitempty"`

	// The statuses of a backend's answers that are failures, too: 500 to 599, or
	// `5xx` for all of them. Default: none.
	Statuses []string `json:"statuses,omitempty"`

	position policy.Position
	failing  policy.FailureStatuses
	stores   lease.Set[fallbackPlace, *lastGood]
	sharing  *sharing.Rules
	missing  sync.Once // to tell that there is no such backend
}

// FallbackResponse is a fixed answer.
type FallbackResponse struct {
	// The body, sent byte for byte. It is announced as JSON if it is JSON, and as
	// plain text otherwise, unless the headers say what it is. Default: empty.
	Body string `json:"body,omitempty" caddyfile:"arg"`

	// The status, 200 to 599. Default: 503.
	StatusCode int `json:"status_code,omitempty" caddyfile:"arg" default:"503"`

	// Header fields. Default: none.
	Headers map[string]string `json:"headers,omitempty"`
}

const (
	defaultKeptBytes = 64 << 20
	defaultKeptBody  = 1 << 20

	fallbackSuffix = "-fallback"
	fallbackHeader = "X-Gateway-Fallback"

	byCached   = "cached"
	byResponse = "response"

	// fallbackVar is the variable of a request that a fallback backend has got: that
	// one has no fallback backend itself.
	fallbackVar = "rgate.fallback"
)

// CaddyModule returns the Caddy module information.
func (*Fallback) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_fallback",
		New: func() caddy.Module { return new(Fallback) },
	}
}

// Provision sets the policy up. The answers that it has kept before are looked for
// when requests come.
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
	if policy.Standing(ctx).Level == "" {
		for _, warning := range f.Warnings(nil) {
			ctx.Logger().Warn(warning)
		}
	}
	f.failing, _ = policy.ParseFailureStatuses(f.Statuses, nil) // Validate tells
	f.position = policy.PositionOf(ctx, "fallback")
	return fallbacks.Register(ctx)
}

// Check reports the first thing wrong with the options.
func (f *Fallback) Check() error {
	switch {
	case f.Cached < 0:
		return policy.Optionf("cached", "cached is negative: use a duration such as 10m")
	case f.MaxBytes < 0:
		return policy.Optionf("max_bytes", "max_bytes is negative: use a size such as 64MiB")
	case f.MaxBody < 0:
		return policy.Optionf("max_body", "max_body is negative: use a size such as 1MiB")
	case f.Cached == 0 && f.MaxBytes != 0:
		return policy.Optionf("max_bytes", "max_bytes is about kept answers, and none is: set cached, such as 10m")
	case f.Cached == 0 && f.MaxBody != 0:
		return policy.Optionf("max_body", "max_body is about kept answers, and none is: set cached, such as 10m")
	case f.Cached == 0 && f.Key != "":
		return policy.Optionf("key", "key requires cached: set cached, such as 10m, or remove key")
	case f.Cached == 0 && f.IgnoreFields != nil:
		return policy.Optionf("ignore_fields", "ignore_fields requires cached: set cached, such as 10m, or remove ignore_fields")
	case policy.IsUnclosed(f.Key):
		return policy.UnclosedKey("key", f.Key)
	case f.Key != "" && !policy.HasPlaceholder(f.Key):
		return policy.Optionf("key", "key %q has no placeholder and tells no requests apart: use one such as {http.request.header.X-Tenant}", f.Key)
	case f.MaxBody > cmp.Or(f.MaxBytes, defaultKeptBytes):
		return policy.Optionf("max_body", "max_body is more than max_bytes, %d: use less, or more max_bytes", cmp.Or(f.MaxBytes, defaultKeptBytes))
	case strings.ContainsAny(f.Backend, "{} \t"):
		return policy.Optionf("backend", "%q is no backend: use the name of one", f.Backend)
	}
	if err := policy.CheckKey("key", f.Key); err != nil {
		return err
	}
	if err := sharing.CheckIgnoredFields(f.IgnoreFields); err != nil {
		return err
	}
	if _, err := policy.ParseFailureStatuses(f.Statuses, nil); err != nil {
		return err
	}
	if f.Response == nil {
		return nil
	}
	return f.Response.check()
}

// Validate reports the first thing wrong with the options.
func (f *Fallback) Validate() error { return f.Check() }

// Warnings implements policy.Warner.
func (f *Fallback) Warnings([]caddyhttp.MiddlewareHandler) []string {
	if f.Off() || f.Cached == 0 || f.IgnoreFields != nil || f.Key != "" {
		return nil
	}
	return []string{"responses to requests with credentials or unknown fields are kept for a failing backend only if they are public or their Vary names the field: " +
		"name fields that do not change responses in ignore_fields of fallback, or write `ignore_fields: []` if there are none; earlier versions kept more"}
}

// Cleanup lets go of the kept responses.
func (f *Fallback) Cleanup() error {
	f.stores.Release()
	f.position.Release()
	return nil
}

// failure is how a backend has failed.
type failure struct {
	status int   // of the answer that was thrown away; 0 if there was none
	err    error // nil if there was an answer
}

// ServeHTTP passes a request on, and answers it if that fails.
func (f *Fallback) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if f.Off() {
		return next.ServeHTTP(w, r)
	}
	exchange := policy.ExchangeOf(r)
	if exchange == nil {
		policy.Cover(r)
	}
	c := fallbackCalls.Get().(*fallbackCall)
	c.policy, c.w, c.r, c.exchange = f, w, r, exchange
	c.ResponseWriter = w
	c.before.Set(w.Header())
	c.body = unreadBody(r, exchange)
	if asked := policy.TargetOf(r); f.Cached > 0 && (sharing.IsRead(&asked) || !sharing.IsSafeMethod(r.Method)) {
		c.store, c.q = f.storeAt(r), f.sharing.Read(r, true)
		if c.q.Credential != "" || c.q.Unknown != "" {
			c.q.Header = maps.Clone(r.Header) // as the client sent it
		}
		c.setKey()
	}
	returned := false
	defer func() {
		// A panic may leave the writer in the hands of a goroutine.
		if returned && !c.hijacked {
			c.reset()
			fallbackCalls.Put(c)
		}
	}()
	var err error
	if c.store == nil && len(f.Statuses) == 0 {
		err = next.ServeHTTP(w, r) // an error says enough
	} else {
		err = c.pass(next)
	}
	failed := failure{c.thrownAway, err}
	switch {
	case c.thrownAway != 0 || isFailure(r, err) && !c.began:
		if r.Context().Err() == nil {
			err = c.answer(failed)
		}
	case err == nil:
		c.finish()
	}
	returned = true
	return err
}

// pass passes the request on. What happens to an answer that is thrown away does not
// matter any more.
func (c *fallbackCall) pass(next caddyhttp.Handler) error {
	returned := false
	defer func() {
		if !returned && c.thrownAway != 0 {
			if cause := recover(); cause != http.ErrAbortHandler {
				panic(cause)
			}
		}
	}()
	err := next.ServeHTTP(c, c.r)
	returned = true
	return err
}

// isFailure reports whether an error means that a backend has not answered.
func isFailure(r *http.Request, err error) bool {
	failed, ok := errors.AsType[caddyhttp.HandlerError](err)
	if !ok || policy.JudgeRequest(r, 0, err).Status < 500 {
		return false // it is the client's
	}
	switch failed.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	_, ok = errors.AsType[policy.Failure](err)
	return ok && failed.StatusCode >= 500
}

// nothingSent reports whether a failure came before the backend had anything of the
// request.
func (c *fallbackCall) nothingSent(err error) bool {
	return err != nil && policy.JudgeRequest(c.r, 0, err).Unsent
}

// answer answers in place of the backend, if it can.
func (c *fallbackCall) answer(failed failure) error {
	header := c.w.Header()
	after := header.Clone()
	if good := c.kept(); good != nil {
		c.before.Restore(header)
		header[fallbackHeader] = []string{byCached}
		c.tell(byCached, failed)
		good.write(c.w, c.r, time.Now(), failed.status)
		return nil
	}
	if name := c.otherBackend(failed); name != "" {
		c.before.Restore(header)
		header[fallbackHeader] = []string{name}
		caddyhttp.SetVar(c.r.Context(), fallbackVar, true)
		c.body.Give(c.r)
		_, err := c.exchange.Forward(name, c.w, c.r)
		caddyhttp.SetVar(c.r.Context(), fallbackVar, nil)
		if !isFailure(c.r, err) {
			c.tell(name, failed)
			return err
		}
	}
	if c.policy.Response != nil {
		c.before.Restore(header)
		if retry := after["Retry-After"]; retry != nil {
			header["Retry-After"] = retry
		}
		header[fallbackHeader] = []string{byResponse}
		c.tell(byResponse, failed)
		c.policy.Response.write(c.w, c.r)
		return nil
	}
	clear(header)
	for name, values := range after {
		header[name] = values
	}
	return c.giveUp(failed)
}

// giveUp leaves the failure what it was.
func (c *fallbackCall) giveUp(failed failure) error {
	err := failed.err
	if failed.status != 0 {
		err = caddyhttp.Error(failed.status, policy.Failure{Cause: fmt.Errorf("the backend answered with status %d", failed.status)})
	}
	if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && c.exchange == nil && !policy.HasErrorRoutes(c.r.Context()) {
		if _, ok := errors.AsType[policy.Failure](err); ok { // nobody else would answer with a body
			policy.WriteStatus(c.w, c.r, handlerErr.StatusCode)
			return nil
		}
	}
	return err
}

// otherBackend is the name of the backend that can get the request, or empty.
func (c *fallbackCall) otherBackend(failed failure) string {
	directory, ok := c.exchange.(policy.Directory)
	if !ok || caddyhttp.GetVar(c.r.Context(), fallbackVar) != nil {
		return ""
	}
	own, name := c.exchange.Place().Backend, c.policy.Backend
	if name == "" {
		name = own + fallbackSuffix
	}
	if name == own {
		return ""
	}
	if !directory.Knows(name) {
		if c.policy.Backend != "" {
			c.policy.missing.Do(func() {
				c.policy.Logger().Error("the gateway has no such fallback backend", zap.String("backend", name))
			})
		}
		return ""
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		// It might be done twice.
		if failed.status != 0 || !c.nothingSent(failed.err) {
			return ""
		}
	}
	if !c.body.Untouched() {
		return ""
	}
	return name
}

// tell says who answers: to the metrics, the log, and in a placeholder.
func (c *fallbackCall) tell(by string, failed failure) {
	fallbacks.Count(c.r, by)
	if repl, ok := c.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.fallback", by)
	}
	if entry := c.policy.Logger().Check(zapcore.WarnLevel, "backend failed, its fallback answers"); entry != nil {
		place, status, cause := policy.PlaceOf(c.r), failed.status, failed.err
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
