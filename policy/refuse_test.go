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
		repl.Set("http.rgate.route", "/api")
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

func TestHeadHasNoBody(t *testing.T) {
	r, w := newRequest(nil)
	r.Method = http.MethodHead
	WriteStatus(w, r, http.StatusNotFound)
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") != "10" {
		t.Errorf("got %q, %v", w.Body, w.Header())
	}
}

func TestStripIdentity(t *testing.T) {
	r, _ := newRequest(new(caddyhttp.Server), "X-User-Id", "a", "X-Consumer-Username", "b", "X-Consumer-Foo", "c",
		"X-Gateway-Service", "d", "x_user-id", "e", "X_consumer_Scopes", "f", "X-Users", "kept", "X-Consumers", "kept", "My_Field", "kept")
	StripIdentity(r)
	if len(r.Header) != 3 {
		t.Errorf("what remains is %v", r.Header)
	}
	r.Header.Set(HeaderUserID, "set by the gateway")
	if StripIdentity(r); r.Header.Get(HeaderUserID) == "" {
		t.Error("a second call took what the gateway has set")
	}
	r, _ = newRequest(new(caddyhttp.Server), "X-User-Id", "a")
	KeepIdentity(r)
	if StripIdentity(r); r.Header.Get(HeaderUserID) != "a" {
		t.Error("the word of a trusted client was taken away")
	}
}

func BenchmarkStripIdentity(b *testing.B) {
	r, _ := newRequest(new(caddyhttp.Server), "Accept", "*/*", "User-Agent", "x", "Accept-Encoding", "gzip", "Cookie", "a=b", "X-Forwarded-For", "::1")
	b.ReportAllocs()
	for b.Loop() {
		caddyhttp.SetVar(r.Context(), strippedVar, nil)
		StripIdentity(r)
	}
}
