// Package policytest contains helpers for the tests of several policies.
package policytest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

// RequestState is a policy.RequestState for tests. It stores the guard that a policy
// sets.
type RequestState struct {
	At       policy.RouteInfo
	Guarding policy.UpstreamGuard
}

// RouteInfo implements policy.RequestState.
func (e *RequestState) RouteInfo() policy.RouteInfo { return e.At }

// Forward implements policy.RequestState. It has no other backends.
func (e *RequestState) Forward(string, http.ResponseWriter, *http.Request) (bool, error) {
	return false, nil
}

// SetGuard implements policy.GuardSetter.
func (e *RequestState) SetGuard(guard policy.UpstreamGuard) (before policy.UpstreamGuard) {
	before, e.Guarding = e.Guarding, guard
	return before
}

// Policy is a policy that can be provisioned and cleaned up.
type Policy interface {
	policy.Module
	caddy.Provisioner
	caddy.CleanerUpper
}

// ProvisionIn provisions a policy in the context of a configuration and checks its
// options.
func ProvisionIn(t testing.TB, ctx caddy.Context, p Policy) {
	t.Helper()
	if err := p.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
}

// Request returns a POST request and a recorder for its response. state, if not nil,
// is the state of the request.
func Request(ctx context.Context, state *RequestState, body io.Reader) (*http.Request, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "http://example.com/", body).WithContext(ctx)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
	if state != nil {
		caddyhttp.SetVar(r.Context(), policy.RequestStateVar, state)
	}
	return r, w
}

// RespondWith returns a handler that responds with a status.
func RespondWith(status int) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(status)
		return nil
	}
}

// FailWith returns a handler that returns an error.
func FailWith(err error) caddyhttp.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) error { return err }
}

// WantOptions checks that a directive is valid if want is empty. Otherwise, it checks
// that the error contains want.
func WantOptions(t *testing.T, p policy.Module, text, want string) {
	t.Helper()
	err := unmarshal(p, text)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
	}
}

// Options returns the options that a directive sets, as JSON. For an invalid directive,
// it returns an exclamation mark and the error.
func Options(t *testing.T, p policy.Module, text string) string {
	t.Helper()
	if err := unmarshal(p, text); err != nil {
		return "! " + err.Error()
	}
	encoded, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func unmarshal(p policy.Module, text string) error {
	return options.Unmarshal(testkit.Dispenser(text), p)
}
