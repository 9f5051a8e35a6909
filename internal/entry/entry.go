package entry

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// entry is the first handler of a server.
type entry struct {
	// The server's own routes. Caddy provisions them in place, some of them after the
	// entry has been mounted. Nil if the entry is in a list of routes.
	routes       caddyhttp.RouteList
	plain        bool // see isPlain
	errorsFollow bool // error routes with an errorEntry follow a failed route
	afterFailure bool // the routes are the server's error routes

	ofAll, ofErrors []preparer // for all requests, and only for requests to error routes

	chain atomic.Pointer[caddyhttp.Handler] // compiled from routes on the first request
	mu    sync.Mutex                        // serializes the compilation
}

// enteredVar is the request variable that marks a request that an entry has handled.
const enteredVar = "rgate.entered"

// ServeHTTP runs the server's own routes or, if the entry is in a list of routes, the
// next handler.
func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if e.routes == nil { // an outer entry may have handled the request
		if caddyhttp.GetVar(r.Context(), enteredVar) != nil {
			return next.ServeHTTP(w, r)
		}
		caddyhttp.SetVar(r.Context(), enteredVar, true)
		return e.serve(w, r, admission{next})
	}
	chain := e.chain.Load()
	if chain == nil {
		chain = e.compile(next)
	}
	return e.serve(w, r, *chain)
}

// compile compiles the server's own routes. next is the same handler for all requests.
func (e *entry) compile(next caddyhttp.Handler) *caddyhttp.Handler {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.chain.Load() == nil {
		chain := caddyhttp.Handler(admission{e.chainOf(next)})
		e.chain.Store(&chain)
	}
	return e.chain.Load()
}

// serve runs a chain between the checks that apply to every request. If the chain fails
// and error routes follow, the errorEntry completes the checks.
func (e *entry) serve(w http.ResponseWriter, r *http.Request, chain caddyhttp.Handler) error {
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "keep-alive") {
		// net/http silently drops Transfer-Encoding from an HTTP/1.0 request and would
		// parse the chunks as requests. Such a request must be the last on its
		// connection (RFC 9112, section 6.1). Gateways do not keep HTTP/1.0 connections
		// open (RFC 9112, section 9.3).
		closeConnection(w)
	}
	for _, p := range e.ofAll {
		p.Prepare(r)
	}
	if r.ProtoMajor != 1 || r.ContentLength == 0 {
		checkLength(r)
		return chain.ServeHTTP(w, r)
	}
	body := guard(w, r)
	if body == nil {
		return chain.ServeHTTP(w, r)
	}
	err := chain.ServeHTTP(body.watch(w), r)
	if err != nil && e.errorsFollow {
		return body.blame(err)
	}
	return body.finish(w, err)
}

// errorEntry is the first handler of a server's error routes.
type errorEntry struct{ *entry }

// ServeHTTP runs the server's own error routes. It is also the entry for requests that
// failed before the server's other routes.
func (e errorEntry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	for _, p := range e.ofErrors {
		p.Prepare(r)
	}
	body := bodyOf(r)
	if body == nil && r.ProtoMajor == 1 && r.ContentLength != 0 {
		body = guard(w, r)
	}
	if body == nil {
		return next.ServeHTTP(w, r)
	}
	return body.finish(w, next.ServeHTTP(body.watch(w), r))
}
