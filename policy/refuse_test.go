package policy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/failure"
)

func newRequest(server *caddyhttp.Server, header ...string) (*http.Request, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server), w
}

func startBase(t *testing.T, name string) (*Base, *prometheus.Registry) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	b := new(Base)
	if err := b.Start(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(ctx, name); err != nil {
		t.Errorf("a second policy of the same configuration: %v", err)
	}
	return b, ctx.GetMetricsRegistry()
}

func TestRefuse(t *testing.T) {
	b, registry := startBase(t, t.Name())
	cause := errors.New("the token of alice is expired")
	for accept, want := range map[string]string{
		"": "Forbidden\n", "text/html, */*": "Forbidden\n",
		"application/json": `{"error":"Forbidden","status":403}`, "application/problem+json": `{"error":"Forbidden","status":403}`,
	} {
		r, w := newRequest(new(caddyhttp.Server), "Accept", accept)
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		caddyhttp.SetVar(r.Context(), RequestStateVar, somewhere{})
		if err := b.Refuse(w, r, http.StatusForbidden, cause); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusForbidden || w.Body.String() != want {
			t.Errorf("%s: got %d %q", accept, w.Code, w.Body)
		}
		if by, _ := repl.GetString("http.rgate.refused_by"); by != t.Name() {
			t.Errorf("refused by %q", by)
		}
	}
	r, w := newRequest(&caddyhttp.Server{Errors: &caddyhttp.HTTPErrorConfig{Routes: make(caddyhttp.RouteList, 1)}})
	var failed caddyhttp.HandlerError
	if err := b.Refuse(w, r, http.StatusForbidden, cause); !errors.As(err, &failed) || failed.StatusCode != http.StatusForbidden || !errors.Is(err, cause) {
		t.Errorf("with error routes: %v", err)
	}

	counted := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range series.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["policy"] == t.Name() {
				key, _ := json.Marshal(labels)
				counted[string(key)] = series.GetCounter().GetValue()
			}
		}
	}
	if len(counted) != 2 || counted[`{"code":"403","policy":"TestRefuse","route":"/api"}`] != 4 || counted[`{"code":"403","policy":"TestRefuse","route":""}`] != 1 {
		t.Errorf("counted were %v", counted)
	}
}

// somewhere is a request state with a route.
type somewhere struct{}

func (somewhere) RouteInfo() RouteInfo { return RouteInfo{"edge", "/api", "web"} }

func (somewhere) Forward(string, http.ResponseWriter, *http.Request) (bool, error) { return false, nil }

// In a gateway, a fallback may respond in place of the policy that rejected a request.
func TestRefuseWithFallback(t *testing.T) {
	b, _ := startBase(t, t.Name())
	cause := errors.New("the breaker is open")
	r, w := newRequest(new(caddyhttp.Server))
	if err := b.RefuseWithFallback(w, r, http.StatusServiceUnavailable, cause); err != nil || w.Code != http.StatusServiceUnavailable {
		t.Errorf("alone: %d, %v", w.Code, err)
	}
	r, w = newRequest(new(caddyhttp.Server))
	caddyhttp.SetVar(r.Context(), RequestStateVar, somewhere{})
	err := b.RefuseWithFallback(w, r, http.StatusServiceUnavailable, cause)
	var failed caddyhttp.HandlerError
	var failure failure.Error
	if !errors.As(err, &failed) || failed.StatusCode != http.StatusServiceUnavailable || !errors.As(err, &failure) || !errors.Is(err, cause) || w.Body.Len() > 0 {
		t.Errorf("in a gateway: %v, and %q was written", err, w.Body)
	}
	if n := RefusalCount(t.Name()); n != 2 {
		t.Errorf("%d are counted", n)
	}
	if n := RefusalCount(t.Name(), "/api"); n != 1 {
		t.Errorf("%d are counted on the route", n)
	}
}

func TestHeadHasNoBody(t *testing.T) {
	r, w := newRequest(nil)
	r.Method = http.MethodHead
	WriteStatus(w, r, http.StatusNotFound)
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") != "10" {
		t.Errorf("got %q, %v", w.Body, w.Header())
	}
}
