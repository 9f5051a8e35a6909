package upstream

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
)

// WithTimeout is a middleware that limits the duration of a handler, including reads of
// the request body. 0 or less: no limit.
func WithTimeout(limit time.Duration, next caddyhttp.Handler) caddyhttp.Handler {
	if limit <= 0 {
		return next
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		r = r.WithContext(ctx)
		if body := httpx.WatchBody(r); body != nil {
			defer body.StopAfter(ctx, w, r)()
		}
		return next.ServeHTTP(w, r)
	})
}
