package policy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
)

type attaching struct{ somewhere }

func (a attaching) Attach(r *http.Request) { caddyhttp.SetVar(r.Context(), RequestStateVar, a) }

// A detached request shares no mutable state with the original.
func TestDetach(t *testing.T) {
	r, w := newRequest(new(caddyhttp.Server), "X-A", "b")
	ended, end := context.WithCancel(r.Context())
	r = r.WithContext(ended)
	caddyhttp.SetVar(r.Context(), RequestStateVar, attaching{})
	caddyhttp.SetVar(r.Context(), "mine", "yes")
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", "alice")

	ctx, cancel := context.WithCancel(context.Background())
	detached := httpx.Detach(ctx, r, httptest.NewRecorder())
	end()
	r.Header.Set("X-A", "changed")
	caddyhttp.SetVar(r.Context(), "mine", "changed")
	repl.Set("http.auth.user.id", "bob")

	if detached.Context().Err() != nil {
		t.Error("it ends with the other one")
	}
	own := detached.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if got := own.ReplaceAll("{http.auth.user.id} {http.vars.mine} {http.request.header.X-A}", ""); got != "alice yes b" {
		t.Errorf("it has %q", got)
	}
	if RouteInfoOf(detached) != RouteInfoOf(r) || w.Code != http.StatusOK {
		t.Errorf("it is in %v", RouteInfoOf(detached))
	}
	cancel()
	if detached.Context().Err() == nil {
		t.Error("it does not end with its context")
	}
}
