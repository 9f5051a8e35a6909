package policy

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
)

// Refuse turns a request away. The client learns the status and what the policy
// has set in the header, and nothing of the cause, which is for the log. The
// refusal is counted, and `{http.rgate.refused_by}` becomes the policy's name.
//
// If the server has error routes (`handle_errors`), they write the answer.
func (b *Base) Refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	return b.refuse(w, r, status, cause, prefersJSON(r))
}

// RefuseWithJSON is Refuse for a policy whose answers programs read more often than
// people: the body is JSON unless the client prefers text.
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

// HasErrorRoutes reports whether the server of a request has error routes, which
// then write the answers to errors.
func HasErrorRoutes(ctx context.Context) bool {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server != nil && server.Errors != nil && len(server.Errors.Routes) > 0
}

// WriteStatus answers with a status and a short body that names it: JSON if the
// client prefers that, else text.
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

// WriteBody writes a whole response of the gateway's own. A gRPC client gets one with a
// status of 400 and above as a response without messages that has grpc-status.
func WriteBody(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	entry.OwnResponse(r, status)
	header := w.Header()
	if len(body) > 0 {
		header.Set("Content-Type", contentType)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client left
	}
}
