// Package coalesce implements the handler rgate_coalesce, which sends equal concurrent
// requests to the backend once and shares the response.
package coalesce

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/sharing"
)

func init() {
	caddy.RegisterModule(new(Coalesce))
	httpcaddyfile.RegisterHandlerDirective("rgate_coalesce", policy.Directive[Coalesce])
}

// Coalesce combines equal GET and HEAD requests that arrive while one of them waits for
// its response. A single request is sent to the backend, and its response is streamed to
// all clients.
//
// Requests are equal if their methods, URLs and header fields are equal. Fields that do not
// affect the response, such as User-Agent, are ignored unless the response's Vary names
// them.
// Requests with credentials (Authorization, cookies, a client certificate) are not shared
// unless `key` contains these credentials.
//
// A response is shared if a shared cache may store it: without Set-Cookie, and without
// private, no-store or no-cache. Responses with status 5xx and errors of handlers are
// also shared. If a response cannot be shared, the waiting requests are sent to the
// backend immediately. Requests for the URL are then not combined for ten seconds.
//
// It sets the placeholder `{http.rgate.coalesced}` to true for requests that received the
// response to another request.
type Coalesce struct {
	policy.Base

	// An additional part of the key, with placeholders. Requests are equal only if its
	// value is equal, too. If it contains a credential, requests with this credential are
	// shared: `{http.request.header.Authorization}`, `{http.request.header.Cookie}`, a
	// `{http.request.cookie.NAME}` or a `{http.request.tls.client.…}`.
	// `{http.auth.user.id}` also shares requests whose credentials were verified and
	// removed by a policy. Default: none.
	Key string `json:"key,omitempty" caddyfile:"arg"`

	// Names of request header fields that are ignored, such as `X-Org-Id`. `X-Acme-*`
	// matches all fields with the prefix. `*` matches all fields that are not well-known
	// and all credentials, except `Authorization`, `Cookie` and identity fields. Default:
	// none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

	// The maximum size of the part of a body that is buffered for slow clients. A client
	// that is further behind and delays the others for more than half of the time
	// continues with a separate request. Default: 1MiB.
	MaxBuffer options.Size `json:"max_buffer,omitempty" default:"1MiB"`

	// The maximum time that a request waits for another request's response to begin.
	// After this time, the request is sent to the backend. Default: 30s.
	MaxWait caddy.Duration `json:"max_wait,omitempty" default:"30s"`

	key     placeholder.Key
	sharing *sharing.Rules
	calls   *calls
}

const (
	defaultMaxBuffer = 1 << 20
	defaultMaxWait   = 30 * time.Second
)

// CaddyModule returns the Caddy module information.
func (*Coalesce) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_coalesce",
		New: func() caddy.Module { return new(Coalesce) },
	}
}

// Provision sets up the policy.
func (c *Coalesce) Provision(ctx caddy.Context) error {
	if err := c.Start(ctx, "coalesce"); err != nil {
		return err
	}
	placeholder.WarnUnknown(ctx, "key", c.Key)
	c.Key = placeholder.Expand(c.Key)
	if c.MaxBuffer == 0 {
		c.MaxBuffer = defaultMaxBuffer
	}
	if c.MaxWait == 0 {
		c.MaxWait = caddy.Duration(defaultMaxWait)
	}
	c.key, c.sharing, c.calls = placeholder.ParseKey(c.Key), sharing.New(c.Key, c.IgnoreFields), newCalls(int64(c.MaxBuffer))
	c.sharing.KeyHasIdentity = strings.Contains(c.Key, "{http.auth.user.")
	return coalesced.Register(ctx)
}

// Check returns an error for the first invalid option.
func (c *Coalesce) Check() error {
	if err := placeholder.CheckKey("key", c.Key); err != nil {
		return err
	}
	switch {
	case c.Key != "" && !placeholder.Has(c.Key):
		return options.Errorf("key", "invalid key %q: must have a placeholder, such as {http.request.header.Authorization}", c.Key)
	case sharing.CheckIgnoredFields(c.IgnoreFields) != nil:
		return sharing.CheckIgnoredFields(c.IgnoreFields)
	case c.MaxBuffer < 0:
		return options.Errorf("max_buffer", "invalid max_buffer %d: must not be negative", c.MaxBuffer)
	case c.MaxWait < 0:
		return options.Errorf("max_wait", "invalid max_wait %v: must not be negative", time.Duration(c.MaxWait))
	}
	return nil
}

// Validate implements caddy.Validator.
func (c *Coalesce) Validate() error { return c.Check() }

// ServeHTTP forwards a request, or serves the response to an equal request.
func (c *Coalesce) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if c.Off() || policy.Looped(r) { // a looped request would wait for its own response
		return next.ServeHTTP(w, r)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return next.ServeHTTP(w, r)
	default:
		return c.change(w, r, next)
	}
	key := requestKeys.Get().(*requestKey)
	var f *call
	var body *reader
	if key.of(r, c.sharing) {
		place := policy.RouteInfoOf(r)
		key.route, key.backend = place.Route, place.Backend
		if c.Key != "" {
			key.text = c.key.Of(r)
		}
		asked := policy.TargetOf(r)
		key.asked = [4]string{asked.Method, asked.Host, asked.Path, asked.Query}
		f, body = c.calls.join(r, key)
	}
	if f == nil || body != nil {
		key.reset()
		requestKeys.Put(key)
	}
	switch {
	case f == nil:
		return next.ServeHTTP(w, r)
	case body == nil:
		return c.lead(f, w, r, next)
	}
	return c.follow(f, body, w, r, next)
}

// change forwards a request that may modify a resource. Later requests for the resource
// do not share responses that began before the change.
func (c *Coalesce) change(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	asked := policy.TargetOf(r)
	url := c.calls.hashOf(asked.Host, plainPath(asked.Path))
	defer func() {
		if !c.calls.idle() {
			c.calls.forget(url)
		}
	}()
	return next.ServeHTTP(w, r)
}

// lead sends the request to the backend. Followers receive the response on their own
// goroutines. If there are followers, another goroutine serves the leader's client. This
// client then cannot delay the others, and the request continues if it disconnects.
func (c *Coalesce) lead(f *call, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	lw := leadWriters.Get().(*leadWriter)
	lw.ResponseWriter, lw.call, lw.request, lw.sharing = w, f, r, c.sharing
	lw.before.Set(w.Header())
	returned := false
	defer func() {
		var cause any
		if !returned {
			cause = recover()
		}
		behind := lw.finish(err, returned)
		f.release()
		own, clientErr := lw.own, lw.clientErr
		if returned && !lw.hijacked {
			lw.reset()
			leadWriters.Put(lw)
		}
		switch {
		case cause != nil:
			panic(cause)
		case behind:
			err = c.goOn(f, own, w, r, next)
		case clientErr != nil:
			panic(http.ErrAbortHandler)
		}
	}()
	f.request = *r.WithContext(f)
	err = next.ServeHTTP(lw, &f.request)
	returned = true
	return err
}

// follow waits for the response to the leader's request.
func (c *Coalesce) follow(f *call, body *reader, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	following := true
	leave := func() {
		if following {
			following = false
			f.leave(body)
		}
	}
	defer leave()

	late := time.NewTimer(time.Duration(c.MaxWait))
	defer late.Stop()
	select {
	case <-f.begun:
	case <-late.C:
		leave()
		return next.ServeHTTP(w, r)
	case <-r.Context().Done():
		return leftError(r)
	}
	o := &f.outcome
	if q := c.sharing.Varied(r); !o.shared || !o.varied.Matches(&q) {
		leave()
		return next.ServeHTTP(w, r)
	}
	coalesced.Count(r, "")
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.coalesced", true)
	}
	o.header.Apply(w.Header())
	if o.err != nil {
		return o.err
	}
	w.WriteHeader(o.status)
	switch err := deliver(w, body, r.Context().Done()); err {
	case nil:
		return nil
	case errBehind:
		leave()
		return c.goOn(f, body, w, r, next)
	default:
		panic(http.ErrAbortHandler)
	}
}

// leftError returns the error for a request whose context ended before a response was
// received: 504 for a timeout, or 499 for a client that disconnected.
func leftError(r *http.Request) error {
	cause := context.Cause(r.Context())
	if errors.Is(cause, context.DeadlineExceeded) {
		return caddyhttp.Error(http.StatusGatewayTimeout, failure.Error{Err: cause})
	}
	return caddyhttp.Error(failure.StatusClientClosedRequest, cause)
}

// goOn sends a separate request for a client that fell behind, and sends the client the
// rest of the new response. If the new response does not begin with the bytes that the
// client has received, goOn aborts the connection.
func (c *Coalesce) goOn(f *call, had *reader, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rw := &restWriter{want: &f.outcome, rest: newRest(had, w), header: make(http.Header)}
	rw.ResponseWriter = w
	if err := next.ServeHTTP(rw, r); err != nil || !rw.complete() {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// deliver writes a shared body to a client.
func deliver(w http.ResponseWriter, body *reader, done <-chan struct{}) error {
	for {
		data, err := body.next(done)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case len(data) > 0:
			_, err = w.Write(data)
		default:
			err = http.NewResponseController(w).Flush()
			if errors.Is(err, http.ErrNotSupported) {
				err = nil
			}
		}
		if err != nil {
			return errLeft
		}
	}
}

// Interface guards
var (
	_ caddy.Provisioner = (*Coalesce)(nil)
	_ caddy.Validator   = (*Coalesce)(nil)
	_ policy.Module     = (*Coalesce)(nil)
)
