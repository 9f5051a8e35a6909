package policy

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/failure"
)

// Refuse rejects a request with a status and the header that the policy has set. The
// cause is not sent to the client. The rejection is counted, and
// `{http.rgate.refused_by}` is set to the policy's name.
//
// If the server has error routes (`handle_errors`), they write the response.
func (b *Base) Refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	return b.refuse(w, r, status, cause, prefersJSON(r))
}

// RefuseWithJSON is like Refuse, but the body is JSON by default. It is text only if
// Accept contains a text type and no JSON type.
func (b *Base) RefuseWithJSON(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	return b.refuse(w, r, status, cause, prefersJSON(r) || !strings.Contains(r.Header.Get("Accept"), "text/"))
}

func (b *Base) refuse(w http.ResponseWriter, r *http.Request, status int, cause error, asJSON bool) error {
	b.countRefusal(r, status)
	if HasErrorRoutes(r.Context()) {
		return caddyhttp.Error(status, cause)
	}
	writeStatus(w, r, status, asJSON)
	return nil
}

const fallbackVar = "rgate.fallback"

// MarkFallbackPresent records that a fallback handles a request outside of a gateway.
// The fallback responds to failures of inner handlers.
func MarkFallbackPresent(r *http.Request) { caddyhttp.SetVar(r.Context(), fallbackVar, true) }

// RefuseWithFallback is like Refuse, but for a policy in front of a backend. In a gateway
// or behind a fallback, it writes no response and returns an error, to which the fallback
// or the gateway responds.
func (b *Base) RefuseWithFallback(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	if RequestStateOf(r) == nil && caddyhttp.GetVar(r.Context(), fallbackVar) == nil {
		return b.Refuse(w, r, status, cause)
	}
	b.countRefusal(r, status)
	started := b.name != "" // the policy is known to run before the backend
	return caddyhttp.Error(status, failure.Error{Err: cause, Result: failure.Result{Cause: failure.Gateway, Status: status, Unsent: started}})
}

// countRefusal counts a rejection and sets `{http.rgate.refused_by}`.
func (b *Base) countRefusal(r *http.Request, status int) {
	route := RouteInfoOf(r).Route
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.refused_by", b.name)
	}
	refusals.Count(refusal{b.name, route, status})
}

// HasErrorRoutes reports whether the server of a request has error routes
// (`handle_errors`), which respond to errors.
func HasErrorRoutes(ctx context.Context) bool {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server != nil && server.Errors != nil && len(server.Errors.Routes) > 0
}

// WriteStatus responds with a status and its text as the body. The body is JSON if
// Accept contains a JSON type, else plain text.
func WriteStatus(w http.ResponseWriter, r *http.Request, status int) {
	writeStatus(w, r, status, prefersJSON(r))
}

func prefersJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") || strings.Contains(accept, "+json")
}

func writeStatus(w http.ResponseWriter, r *http.Request, status int, asJSON bool) {
	text, contentType := http.StatusText(status), "text/plain; charset=utf-8"
	body := []byte(text + "\n")
	if asJSON {
		contentType = "application/json"
		body, _ = json.Marshal(map[string]any{"status": status, "error": text})
	}
	WriteBody(w, r, status, contentType, body)
}

// WriteBody writes a complete response of the gateway. For a gRPC client, a response
// with a status of 400 or above is converted to a response with grpc-status and no
// messages.
func WriteBody(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	entry.OwnResponse(r, status)
	header := w.Header()
	if len(body) > 0 {
		header.Set("Content-Type", contentType)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // fails if the client has disconnected
	}
}
