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
	// routes are the server's own. Caddy provisions them in place, some of them after
	// the entry has been mounted.
	routes       caddyhttp.RouteList
	errorsFollow bool // error routes run after a route has failed, behind an errorEntry

	chain atomic.Pointer[caddyhttp.Handler] // compiled from routes at the first request
	mu    sync.Mutex                        // serialises the compilation
}

var checks []func(*http.Request) error

// RegisterCheck makes check run for every request of every server that has one of rgate's
// handlers, before any other handler. A request for which it returns an error, such as
// caddyhttp.Error(http.StatusBadRequest, …), goes no further. It is to be called in init
// functions.
func RegisterCheck(check func(*http.Request) error) { checks = append(checks, check) }

// ServeHTTP passes a request on to the server's own routes.
func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	chain := e.chain.Load()
	if chain == nil {
		chain = e.compile(next)
	}
	return e.serve(w, r, *chain, e.errorsFollow)
}

// compile compiles the server's own routes. What comes after them is the same for all
// requests.
func (e *entry) compile(next caddyhttp.Handler) *caddyhttp.Handler {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.chain.Load() == nil {
		chain := caddyhttp.Handler(admission{e.routes.Compile(next)})
		e.chain.Store(&chain)
	}
	return e.chain.Load()
}

// serve runs a chain between what must hold for every request before and after it. If it
// fails and another one follows, what comes after is left to that one.
func (e *entry) serve(w http.ResponseWriter, r *http.Request, chain caddyhttp.Handler, follows bool) error {
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "keep-alive") {
		// net/http drops Transfer-Encoding from a request of HTTP/1.0 without a trace, and would
		// take its chunks for requests. Such a request is the last one (RFC 9112, section 6.1), and
		// a gateway keeps no connection of HTTP/1.0 (RFC 9112, section 9.3).
		closeConnection(w)
	}
	if r.ProtoMajor != 1 || r.ContentLength == 0 {
		return chain.ServeHTTP(w, r)
	}
	body := guard(w, r)
	if body == nil {
		return chain.ServeHTTP(w, r)
	}
	err := chain.ServeHTTP(body.watch(w), r)
	if err != nil && follows {
		return err
	}
	return body.finish(w, err)
}

// errorEntry is the first handler of a server's error routes.
type errorEntry struct{ *entry }

// ServeHTTP passes a request on to the server's own error routes.
func (e errorEntry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return e.serve(w, r, next, false)
}
