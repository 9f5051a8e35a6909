package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		`rgate_dashboard`:          `{}`,
		`rgate_dashboard off`:      `{"disabled":true}`,
		`rgate_dashboard /figures`: `{"path":"/figures"}`,
		"rgate_dashboard /figures {\n allow 10.0.0.0/8 private_ranges\n timezone Europe/Berlin\n refresh 1m\n gateway edge\n}": `{"path":"/figures","allow":["10.0.0.0/8","private_ranges"],"gateway":"edge","timezone":"Europe/Berlin","refresh":60000000000}`,
		`rgate_dashboard figures`:                `invalid path "figures": use a path such as /dashboard`,
		`rgate_dashboard @matcher`:               `invalid path "@matcher": use a path such as /dashboard`,
		`rgate_dashboard /a/`:                    `invalid path "/a/": use a path such as /dashboard`,
		`rgate_dashboard /a /b`:                  `unexpected argument '/b'`,
		"rgate_dashboard {\n timezone Berlin\n}": `unknown time zone "Berlin": use a name such as Europe/Berlin, or UTC`,
		"rgate_dashboard {\n refresh 100ms\n}":   `invalid refresh 100ms: must be at least 1s, such as 15s`,
		"rgate_dashboard {\n refesh 10s\n}":      `unrecognized subdirective 'refesh' (did you mean "refresh"?): use `,
	} {
		h := httpcaddyfile.Helper{Dispenser: caddyfile.NewTestDispenser(text)}
		handler, err := policy.Directive[Dashboard](h)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			encoded, _ := json.Marshal(handler)
			got = string(encoded)
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// Requests for a disabled page, or for other paths, are passed to the next handler.
func TestOtherPathsGoOn(t *testing.T) {
	for _, d := range []*Dashboard{{Base: policy.Base{Disabled: true}}, {ProtectedEndpoint: policy.ProtectedEndpoint{Path: "/dashboard"}}} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		t.Cleanup(cancel)
		d.Gateway = "none"
		if err := d.Provision(ctx); err != nil && d.Off() { // provisioning the enabled page fails: rgate_ip_filter is not registered here
			t.Fatal(err)
		}
		paths := []string{"/", "/dashboards", "/x/dashboard"}
		if d.Off() {
			paths = append(paths, "/dashboard")
		}
		for _, path := range paths {
			reached := false
			next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { reached = true; return nil })
			if err := d.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil), next); err != nil || !reached {
				t.Errorf("%s: got %v, the next handler was reached: %v", path, err, reached)
			}
		}
		if err := d.Cleanup(); err != nil {
			t.Error(err)
		}
		if err := d.Cleanup(); err != nil { // the second call releases nothing
			t.Error(err)
		}
	}
}
