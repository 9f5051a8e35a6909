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
	// routes are the server's own routes. Caddy provisions them in place, some after the
	// entry has been mounted. Nil if the entry is one of them.
	routes       caddyhttp.RouteList
	plain        bool // see isPlain
	errorsFollow bool // error routes run after a route has failed, behind an errorEntry
	afterFailure bool // the routes are the server's error routes

	ofAll, ofErrors []preparer // for all requests, and for those that come to error routes

	chain atomic.Pointer[caddyhttp.Handler] // compiled from routes at the first request
	mu    sync.Mutex                        // serialises the compilation
}

// enteredVar is the variable of a request that has passed an entry among routes.
const enteredVar = "rgate.entered"

// ServeHTTP passes a request on to the server's own routes, or to those behind the entry.
func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if e.routes == nil { // there may be an outer one
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

// compile compiles the server's own routes. The handler after them is the same for all
// requests.
func (e *entry) compile(next caddyhttp.Handler) *caddyhttp.Handler {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.chain.Load() == nil {
		chain := caddyhttp.Handler(admission{e.chainOf(next)})
		e.chain.Store(&chain)
	}
	return e.chain.Load()
}

// serve runs a chain with the checks of every request before and after it. If it fails
// and error routes follow, their entry does the rest.
func (e *entry) serve(w http.ResponseWriter, r *http.Request, chain caddyhttp.Handler) error {
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "keep-alive") {
		// net/http silently drops Transfer-Encoding from a request of HTTP/1.0, and would read
		// its chunks as requests. Such a request must be the last one (RFC 9112, section 6.1),
		// and gateways do not keep connections of HTTP/1.0 (RFC 9112, section 9.3).
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

// ServeHTTP passes a request on to the server's own error routes. Requests that failed
// before the server's other routes enter here.
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
