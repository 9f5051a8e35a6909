package entry

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// admission rejects requests with an invalid method, length or target, removes upgrade
// offers that would bypass the handlers, and adapts responses to the client.
type admission struct{ next caddyhttp.Handler }

// ServeHTTP implements caddyhttp.Handler.
func (a admission) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if !r.ProtoAtLeast(1, 1) {
		w = &finalWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	}
	if !IsGRPC(r) {
		return a.serve(w, r)
	}
	calls := &grpcWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, request: r}
	return calls.end(a.serve(calls, r))
}

func (a admission) serve(w http.ResponseWriter, r *http.Request) error {
	if err := checkMethod(r); err != nil {
		return err
	}
	if err := checkLengths(r); err != nil {
		return err
	}
	if err := checkTarget(r); err != nil {
		if r.Method == http.MethodConnect && r.ProtoMajor == 1 {
			closeConnection(w) // the client may already have sent tunnel data
		}
		return err
	}
	if dropped := DropUpgrades(r, keepsHandlers); dropped != nil {
		caddyhttp.SetVar(r.Context(), droppedVar, dropped)
	}
	return a.next.ServeHTTP(w, r)
}
