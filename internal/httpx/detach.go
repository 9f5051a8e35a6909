package httpx

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Attacher is a request variable that cannot be copied. Detach calls Attach, which adds
// a separate variable to the detached request.
type Attacher interface {
	Attach(r *http.Request)
}

// Detach returns a copy of a request without its body. The copy can outlive the
// original and ends with ctx. Its header, its variables and the placeholders of the user
// are copies. Detach must be called while the original is being handled. w receives the
// response.
func Detach(ctx context.Context, r *http.Request, w http.ResponseWriter) *http.Request {
	for _, key := range []any{http.ServerContextKey, http.LocalAddrContextKey} {
		if value := r.Context().Value(key); value != nil {
			ctx = context.WithValue(ctx, key, value)
		}
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	detached := r.Clone(ctx)
	detached.Body, detached.ContentLength, detached.TransferEncoding = http.NoBody, 0, nil
	repl := caddy.NewReplacer()
	detached = caddyhttp.PrepareRequest(detached, repl, w, server)

	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	var attachers []Attacher
	for key, value := range vars {
		if attacher, ok := value.(Attacher); ok {
			attachers = append(attachers, attacher)
		} else {
			caddyhttp.SetVar(detached.Context(), key, value)
		}
	}
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		*detached = *detached.WithContext(context.WithValue(detached.Context(), caddyhttp.OriginalRequestCtxKey, original)) // the replacer keeps a pointer to the request
	}
	for _, attacher := range attachers {
		attacher.Attach(detached)
	}
	if before, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		for _, key := range userPlaceholders {
			if value, known := before.Get(key); known {
				repl.Set(key, value)
			}
		}
	}
	return detached
}

// userPlaceholders lists the placeholders that identify the user of a request.
var userPlaceholders = []string{
	"http.auth.user.id", "http.auth.user.consumer", "http.auth.user.scopes", "http.auth.user.roles",
}
