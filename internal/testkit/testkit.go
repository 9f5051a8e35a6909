// Package testkit contains test helpers for several packages.
package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Patience is the maximum wait of Eventually. Only failing tests wait that long.
const Patience = 20 * time.Second

// Eventually polls a condition until it is true. It fails the test after Patience.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for begun := time.Now(); !condition(); {
		waited := time.Since(begun)
		if waited > Patience {
			t.Fatalf("timed out after %s waiting until %s", Patience, what)
		}
		time.Sleep(min(max(waited/10, time.Millisecond), 20*time.Millisecond))
	}
}

// RequireProgram returns the path of the first installed program. It skips the test if
// none is installed, and in short mode.
func RequireProgram(t testing.TB, names ...string) (path string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("requires %s: short mode has no services", names[0])
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("requires %s: install it, or run `make test`, which does", names[0])
	return ""
}

// Backend runs an HTTP server until the test ends, and counts its requests. The default
// handler responds with the method and the target of the request.
func Backend(t testing.TB, handler http.HandlerFunc) (address string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if handler != nil {
			handler(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), requests
}

// Context returns the context of a configuration that remains active until the test
// ends.
func Context(t testing.TB) caddy.Context {
	t.Helper()
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	return ctx
}

// Load provisions a module from JSON. It is cleaned up when the test ends.
func Load[T any, P interface {
	*T
	caddy.Module
}](t testing.TB, config string) P {
	t.Helper()
	module, err := Context(t).LoadModuleByID(string(P(new(T)).CaddyModule().ID), json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	return module.(P)
}

// TryProvision provisions and validates a module. It is cleaned up when the test ends.
func TryProvision(t testing.TB, module caddy.Provisioner) error {
	t.Helper()
	ctx := Context(t)
	if cleaner, ok := module.(caddy.CleanerUpper); ok {
		t.Cleanup(func() {
			if err := cleaner.Cleanup(); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		})
	}
	if err := module.Provision(ctx); err != nil {
		return err
	}
	if validator, ok := module.(caddy.Validator); ok {
		return validator.Validate()
	}
	return nil
}

// Provision is like TryProvision, but fails the test if the module is invalid.
func Provision[M caddy.Provisioner](t testing.TB, module M) M {
	t.Helper()
	if err := TryProvision(t, module); err != nil {
		t.Fatal(err)
	}
	return module
}

// Request returns a GET request in the form in which Caddy's server calls handlers. The
// client's address is 192.0.2.1. headers contains alternating names and values.
func Request(target string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	addFields(r, headers)
	ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1"})
	return r.WithContext(context.WithValue(ctx, caddy.ReplacerCtxKey, caddy.NewReplacer()))
}

// Prepare adds header fields and the context values of Caddy's server to a request.
// headers contains alternating names and values.
func Prepare(r *http.Request, server *caddyhttp.Server, headers ...string) *http.Request {
	addFields(r, headers)
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, server)
}

func addFields(r *http.Request, headers []string) {
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
}

// Placeholder returns the value of a placeholder in a request.
func Placeholder(r *http.Request, name string) string {
	value, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString(name)
	return value
}

// Serve runs a middleware for a request. It returns the response and the request that
// the next handler received, or nil if the next handler was not called.
func Serve(t testing.TB, middleware caddyhttp.MiddlewareHandler, r *http.Request) (*httptest.ResponseRecorder, *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	var passed *http.Request
	err := middleware.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		passed = r
		return nil
	}))
	if err != nil {
		t.Error(err)
	}
	return w, passed
}

// Dispenser returns the tokens of a directive. The current token is the directive name.
func Dispenser(text string) *caddyfile.Dispenser {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	return d
}

// CheckDirectives compares the JSON form of each directive with the wanted one. For an
// invalid directive, it compares the error up to its position. cases contains pairs of
// a directive and the wanted result.
func CheckDirectives[T any](t *testing.T, unmarshal func(*caddyfile.Dispenser, any) error, cases [][2]string) {
	t.Helper()
	for _, tc := range cases {
		target := new(T)
		got := ""
		if err := unmarshal(Dispenser(tc[0]), target); err != nil {
			got, _, _ = strings.Cut(err.Error(), ", at Testfile:")
		} else if text, err := json.Marshal(target); err != nil {
			got = err.Error()
		} else {
			got = string(text)
		}
		if got != tc[1] {
			t.Errorf("%s\ngot  %s\nwant %s", tc[0], got, tc[1])
		}
	}
}

// DiscardWriter is a response writer that keeps only the header.
type DiscardWriter http.Header

// Header implements http.ResponseWriter.
func (w DiscardWriter) Header() http.Header { return http.Header(w) }

// Write implements http.ResponseWriter.
func (DiscardWriter) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (DiscardWriter) WriteHeader(int) {}

// Benchmark measures a middleware whose next handler responds immediately. If
// middleware is nil, it measures only that handler.
func Benchmark(b *testing.B, r *http.Request, middleware func(http.ResponseWriter, *http.Request, caddyhttp.Handler) error) {
	w := DiscardWriter(BackendHeader())
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Vary"] = nil // set by the previous request
		w.WriteHeader(http.StatusOK)
		return nil
	})
	if middleware == nil {
		middleware = func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
			return next.ServeHTTP(w, r)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := middleware(w, r, next); err != nil {
			b.Fatal(err)
		}
	}
}

// BackendHeader returns the header of a typical response.
func BackendHeader() http.Header {
	return http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"61"}, "Date": {"Wed, 21 Oct 2015 07:28:00 GMT"},
		"Server": {"nginx"}, "Etag": {`"1"`}, "Cache-Control": {"no-store"}, "Via": {"1.1 Caddy"},
	}
}
