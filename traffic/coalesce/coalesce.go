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

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/sharing"
)

func init() {
	caddy.RegisterModule(new(Coalesce))
	httpcaddyfile.RegisterHandlerDirective("rgate_coalesce", policy.Directive[Coalesce])
}

// Coalesce lets equal GET and HEAD requests that arrive while one of them waits for
// its answer share that answer: the backend is asked once. Bodies go on to all of
// them as they come.
//
// Requests are equal if all of their header fields are, but for those that say
// nothing about what is asked for, such as User-Agent; if the answer's Vary names one
// of those, it has to be equal, too. Those with credentials (Authorization, cookies,
// a client's certificate) have the backend to themselves, unless the key tells whose
// they are.
//
// An answer is shared if a shared cache might store it: no Set-Cookie, and not
// private, no-store or no-cache; also a 5xx, and what handlers return in place of an
// answer. If it may not, everybody who waited asks for an own one, all at once, and
// equal requests do not wait for each other for the next ten seconds.
//
// It sets the placeholder `{http.rgate.coalesced}` to true for a request that got the
// answer of another one.
type Coalesce struct {
	policy.Base

	// What else requests must have in common: text with placeholders. If it has
	// `{http.request.header.Authorization}`, `{http.request.header.Cookie}`, a
	// `{http.request.cookie.NAME}` or a `{http.request.tls.client.…}`, requests with
	// such credentials are shared among those with the same ones; with
	// `{http.auth.user.id}`, those whose credentials a policy has taken and hidden.
	// Default: nothing.
	Key string `json:"key,omitempty" caddyfile:"arg"`

	// Names of request fields that need not be equal, and that do not keep a request from
	// being shared, such as `X-Org-Id`; `X-Acme-*` for all that begin so, and `*` for all
	// but `Authorization`, `Cookie` and those about users. Default: none.
	IgnoreFields []string `json:"ignore_fields,omitempty"`

	// How much of a body is kept for those who have not had it yet. A client that is
	// further behind than that, and makes the others wait for more than half of the
	// time, goes on with an own request. Default: 1MiB.
	MaxBuffer policy.Size `json:"max_buffer,omitempty" default:"1MiB"`

	// How long a request waits for another one's answer to begin; then the backend is
	// asked for an own one. Default: 30s.
	MaxWait caddy.Duration `json:"max_wait,omitempty" default:"30s"`

	key     policy.Key
	sharing *sharing.Rules
	flights *flights
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

// Provision sets the policy up.
func (c *Coalesce) Provision(ctx caddy.Context) error {
	if err := c.Start(ctx, "coalesce"); err != nil {
		return err
	}
	policy.WarnOfKey(ctx, "key", c.Key)
	c.Key = policy.ExpandPlaceholders(c.Key)
	if c.MaxBuffer == 0 {
		c.MaxBuffer = defaultMaxBuffer
	}
	if c.MaxWait == 0 {
		c.MaxWait = caddy.Duration(defaultMaxWait)
	}
	c.key, c.sharing, c.flights = policy.ParseKey(c.Key), sharing.New(c.Key, c.IgnoreFields), newFlights(int64(c.MaxBuffer))
	c.sharing.KeyHasIdentity = strings.Contains(c.Key, "{http.auth.user.")
	return coalesced.Register(ctx)
}

// Check reports the first thing wrong with the options.
func (c *Coalesce) Check() error {
	if err := policy.CheckKey("key", c.Key); err != nil {
		return err
	}
	switch {
	case c.Key != "" && !policy.HasPlaceholder(c.Key):
		return policy.Optionf("key", "key %q has no placeholder and tells no requests apart: use one such as {http.request.header.Authorization}, or leave it out", c.Key)
	case sharing.CheckIgnoredFields(c.IgnoreFields) != nil:
		return sharing.CheckIgnoredFields(c.IgnoreFields)
	case c.MaxBuffer < 0:
		return policy.Optionf("max_buffer", "max_buffer is negative: use a size such as 1MiB")
	case c.MaxWait < 0:
		return policy.Optionf("max_wait", "max_wait is negative: use a duration such as 30s")
	}
	return nil
}

// Validate reports the first thing wrong with the options.
func (c *Coalesce) Validate() error { return c.Check() }

// ServeHTTP passes a request on, or has it share the answer of an equal one.
func (c *Coalesce) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if c.Off() || policy.Looped(r) { // which would wait for itself
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
	var f *flight
	var body *reader
	if key.of(r, c.sharing) {
		place := policy.PlaceOf(r)
		key.route, key.backend = place.Route, place.Backend
		if c.Key != "" {
			key.text = c.key.Of(r)
		}
		asked := policy.TargetOf(r)
		key.asked = [4]string{asked.Method, asked.Host, asked.Path, asked.Query}
		f, body = c.flights.join(r, key)
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

// change passes on a request that may change what others ask for. Who asks once it
// is over gets an answer that began later.
func (c *Coalesce) change(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	asked := policy.TargetOf(r)
	url := c.flights.hashOf(asked.Host, plainPath(asked.Path))
	defer func() {
		if !c.flights.idle() {
			c.flights.forget(url)
		}
	}()
	return next.ServeHTTP(w, r)
}

// lead sends the request to the backend, for all who wait for its answer. They are
// served on their own goroutines. If there are any, so is this one's client, that
// nobody has to wait for it; the request goes on if it leaves.
func (c *Coalesce) lead(f *flight, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	lw := leadWriters.Get().(*leadWriter)
	lw.ResponseWriter, lw.flight, lw.request, lw.sharing = w, f, r, c.sharing
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

// follow waits for the answer that another request asked for.
func (c *Coalesce) follow(f *flight, body *reader, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
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

// leftError is the error for a client that left before it had an answer.
func leftError(r *http.Request) error {
	cause := context.Cause(r.Context())
	if errors.Is(cause, context.DeadlineExceeded) {
		return caddyhttp.Error(http.StatusGatewayTimeout, policy.Failure{Cause: cause})
	}
	return caddyhttp.Error(policy.StatusClientClosedRequest, cause)
}

// goOn sends a request of its own for a client that fell behind in a shared answer,
// and lets it have what it has not had. That is right if all that it has had is how
// the new answer begins; else the connection is cut.
func (c *Coalesce) goOn(f *flight, had *reader, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
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
