package apikey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/access/ratelimit"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func TestAPIKeyAdmits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte(keyLine("filed", "in-file")+keyLine("shadowed", "old")), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &APIKey{Options: Options{
		Keys: []Key{
			{Name: "alice", SHA256: keyHash("old"), Scopes: []string{"pay"}},
			{Name: "alice", SHA256: keyHash("new"), Scopes: []string{"pay", "refund"}, Roles: []string{"admin"}},
			{Name: "bob", SHA256: keyHash("late"), Expires: "2020-01-01"},
		},
		File: path,
	}}
	testkit.Provision(t, p)
	core, logs := observer.New(zapcore.DebugLevel)
	p.logger = zap.New(core)
	for _, tc := range []struct{ key, consumer, scopes, reason string }{
		{"old", "alice", "pay", ""}, // takes precedence over the same key in the file
		{"new", "alice", "pay refund", ""},
		{"in-file", "filed", "", ""},
		{"late", "bob", "", "the API key has expired"},
		{"wrong-secret", "", "", "unknown API key"},
		{"", "", "", "the request has no API key"},
	} {
		r := testkit.Request("/", "X-API-Key", tc.key, "X-Consumer-Username", "root", "X-Consumer-Groups", "admin", "X-User-Id", "root", "X_Consumer_Scopes", "all")
		w, seen := testkit.Serve(t, p, r)
		if admitted := tc.consumer != "" && tc.reason == ""; admitted != (seen != nil) {
			t.Errorf("%q: got status %d", tc.key, w.Code)
		}
		logged := logs.TakeAll()
		if seen == nil {
			if got := w.Result().Header; w.Code != 401 || got.Get("WWW-Authenticate") != `ApiKey realm="rgate"` {
				t.Errorf("%q: got status %d and %v", tc.key, w.Code, got)
			}
			if body := w.Body.String(); body != "Unauthorized\n" {
				t.Errorf("%q: the client receives %q", tc.key, body)
			}
			if len(logged) != 1 || logged[0].ContextMap()["error"] != tc.reason {
				t.Errorf("%q: the log has %v, want %q", tc.key, logged, tc.reason)
			} else if fields := logged[0].ContextMap(); fields["consumer"] != tc.consumer || fields["client_ip"] != "192.0.2.1" || len(fields) > 3 {
				t.Errorf("%q: the log has %v", tc.key, fields)
			}
			continue
		}
		if got := seen.Header; got.Get(trust.HeaderConsumerUsername) != tc.consumer || got.Get(trust.HeaderConsumerScopes) != tc.scopes ||
			got.Get("X-Consumer-Groups")+got.Get("X-User-Id")+got.Get("X_Consumer_Scopes") != "" || got.Get("X-API-Key") != tc.key || len(logged) != 0 {
			t.Errorf("%q: the backend gets %v; the log has %v", tc.key, got, logged)
		}
		for name, want := range map[string]string{"id": tc.consumer, "consumer": tc.consumer, "scopes": tc.scopes} {
			if got := testkit.Placeholder(seen, "http.auth.user."+name); got != want {
				t.Errorf("%q: %s is %q, want %q", tc.key, name, got, want)
			}
		}
	}
}

func TestAPIKeyOptional(t *testing.T) {
	p := &APIKey{Optional: true, Options: Options{
		Keys: []Key{{Name: "alice", SHA256: keyHash("one")}}, Query: "key", HideCredentials: true,
	}}
	testkit.Provision(t, p)
	_, seen := testkit.Serve(t, p, testkit.Request("/?a=b", "X-Consumer-Username", "alice"))
	if seen == nil || identity.Of(seen) != nil || seen.Header.Get("X-Consumer-Username") != "" {
		t.Fatalf("without a key: %+v", seen)
	}
	challenge := make(http.Header)
	identity.Challenge(challenge, seen)
	if got := challenge.Values("WWW-Authenticate"); !slices.Contains(got, `ApiKey realm="rgate"`) {
		t.Errorf("a later policy asks for %q", got)
	}
	if w, seen := testkit.Serve(t, p, testkit.Request("/?a=b&key=wrong")); seen != nil || w.Code != 401 {
		t.Errorf("with a wrong key: got %d", w.Code)
	}
	if _, seen := testkit.Serve(t, p, testkit.Request("/?a=b&key=one")); seen == nil || identity.Of(seen).Consumer != "alice" || seen.URL.RawQuery != "a=b" {
		t.Errorf("with a key: %+v", seen)
	}
	if _, seen := testkit.Serve(t, p, testkit.Request("/", "X-API-Key", "one")); seen == nil || identity.Of(seen) != nil {
		t.Error("the header is looked at, though only the query is set")
	}
}

func TestAPIKeyOff(t *testing.T) {
	p := &APIKey{Base: policy.Base{Disabled: true}}
	testkit.Provision(t, p)
	if _, seen := testkit.Serve(t, p, testkit.Request("/")); seen == nil {
		t.Error("a policy that is off refuses")
	}
}

// TestAPIKeyBesideToken checks that an identity merges a token and an API key.
func TestAPIKeyBesideToken(t *testing.T) {
	p := &APIKey{Options: Options{Keys: []Key{{Name: "shop", SHA256: keyHash("one"), Scopes: []string{"pay"}}}}}
	testkit.Provision(t, p)
	r := testkit.Request("/", "X-API-Key", "one")
	trust.StripIdentity(r)
	identity.Add(r, identity.Identity{User: "alice", Scopes: []string{"read"}})
	_, seen := testkit.Serve(t, p, r)
	if got := seen.Header; got.Get("X-User-Id") != "alice" || got.Get("X-Consumer-Username") != "shop" || got.Get("X-Consumer-Scopes") != "read pay" {
		t.Errorf("the backend gets %v", got)
	}
}

func TestAPILimit(t *testing.T) {
	two := ratelimit.Limit{Requests: 2, Window: caddy.Duration(time.Minute)}
	options := Options{Keys: []Key{
		{Name: "alice", SHA256: keyHash(t.Name() + "one"), RateLimit: &two},
		{Name: "alice", SHA256: keyHash(t.Name() + "other"), RateLimit: &two},
		{Name: "bob", SHA256: keyHash(t.Name() + "free")},
	}}
	first, second := &APIKey{Options: options}, &APIKey{Options: options}
	provider := &Provider{Options: options}
	for _, module := range []caddy.Provisioner{first, second, provider} {
		testkit.Provision(t, module)
	}
	for i, tc := range []struct {
		policy *APIKey
		key    string
		status int
	}{
		{first, "one", 200}, {second, "one", 200}, {first, "one", 429}, {second, "one", 429},
		{first, "other", 200}, {first, "free", 200}, {first, "free", 200}, {first, "free", 200}, {first, "wrong", 401},
	} {
		w, seen := testkit.Serve(t, tc.policy, testkit.Request("/", "X-API-Key", t.Name()+tc.key))
		if w.Code != tc.status || (seen != nil) != (tc.status == 200) {
			t.Errorf("request %d: got %d, want %d", i, w.Code, tc.status)
		}
		if got := w.Result().Header; w.Code == 429 && (got.Get("Retry-After") == "" || got.Get("RateLimit-Remaining") != "0" || got.Get("WWW-Authenticate") != "") {
			t.Errorf("request %d: got %v", i, got)
		}
	}
	if _, ok, _ := provider.Authenticate(httptest.NewRecorder(), testkit.Request("/", "X-API-Key", t.Name()+"one")); ok {
		t.Error("the provider lets in what is above the limit")
	}
}

func TestAPIKeyProvider(t *testing.T) {
	p := &Provider{Options: Options{Keys: []Key{{Name: "alice", SHA256: keyHash("one"), Scopes: []string{"pay"}}}, HideCredentials: true}}
	testkit.Provision(t, p)
	for _, tc := range []struct{ key, user string }{{"one", "alice"}, {"wrong", ""}, {"", ""}} {
		w, r := httptest.NewRecorder(), testkit.Request("/", "X-API-Key", tc.key, "X-Consumer-Username", "root")
		user, ok, err := p.Authenticate(w, r)
		if err != nil || user.ID != tc.user || ok != (tc.user != "") {
			t.Errorf("%q: got %+v, %v and %v", tc.key, user, ok, err)
		}
		if got := r.Header.Get("X-Consumer-Username"); got != tc.user {
			t.Errorf("%q: the backend gets the consumer %q", tc.key, got)
		}
		if got := w.Header().Get("WWW-Authenticate"); (got == "") != ok {
			t.Errorf("%q: the challenge is %q", tc.key, got)
		}
		if ok && (testkit.Placeholder(r, "http.auth.user.scopes") != "pay" || r.Header.Get("X-API-Key") != "") {
			t.Errorf("the backend gets %v", r.Header)
		}
	}
	for _, provider := range []*Provider{{}, {Options: Options{Keys: []Key{{Name: "a"}}}}} {
		if err := testkit.TryProvision(t, provider); err == nil {
			t.Errorf("%+v: no error", provider.Options)
		}
	}
}

func TestAPIKeyErrors(t *testing.T) {
	right := []Key{{Name: "a", SHA256: keyHash("a")}}
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, tc := range []struct {
		options      Options
		field, wrong string
	}{
		{Options{}, "keys", "keys or file is required"},
		{Options{Keys: []Key{}}, "keys", "keys or file is required"},
		{Options{Keys: append(slices.Clone(right), Key{Name: "b", SHA256: "b"})}, "keys[1].sha256", "rgate hash-key"},
		{Options{Keys: append(slices.Clone(right), right...)}, "keys[1].sha256", "have the same sha256"},
		{Options{Keys: right, Header: "X API"}, "header", `invalid header "X API": must be a field name`},
		{Options{Keys: right, Cookie: "a=b"}, "cookie", `invalid cookie "a=b": must be a cookie name`},
	} {
		p := &APIKey{Options: tc.options}
		err := p.Check()
		var about *options.Error
		if !errors.As(err, &about) || about.Field() != tc.field || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: got %v, want one about %s with %q", tc.options, err, tc.field, tc.wrong)
		}
		if err := testkit.TryProvision(t, p); err == nil || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: provisioning gives %v", tc.options, err)
		}
	}
	p := &APIKey{Options: Options{File: missing}}
	if err := p.Check(); err != nil {
		t.Errorf("a missing file: Check says %v", err)
	}
	if err := testkit.TryProvision(t, p); err == nil || !strings.Contains(err.Error(), "missing.yaml: no such file") {
		t.Errorf("a missing file: got %v", err)
	}
	t.Setenv("KEYS_FOLDER", filepath.Dir(missing))
	p = &APIKey{Options: Options{File: "{env.KEYS_FOLDER}/missing.yaml"}}
	if err := testkit.TryProvision(t, p); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a placeholder in the name of the file: got %v", err)
	}
	p = &APIKey{Options: Options{File: "{env.KEYS_NOWHERE}"}}
	if err := testkit.TryProvision(t, p); err == nil || !strings.Contains(err.Error(), "KEYS_NOWHERE") {
		t.Errorf("an unknown placeholder in the name of the file: got %v", err)
	}
}

func TestAPIKeyCaddyfile(t *testing.T) {
	var p APIKey
	err := options.Unmarshal(testkit.Dispenser(`rgate_api_key {
	keys alice `+keyHashA+` {
		scopes pay refund
		roles admin
		expires 2027-01-31
		rate_limit 100 1m
	}
	keys bob {
		sha256 `+keyHashB+`
		rate_limit {
			requests 5
			window 1h
		}
	}
	file keys.yaml
	header X-Key
	query key
	cookie key
	hide_credentials
	optional
}`), &p)
	if err != nil {
		t.Fatal(err)
	}
	a := p.Keys[0]
	if len(p.Keys) != 2 || a.Name != "alice" || a.SHA256 != keyHashA || len(a.Scopes) != 2 || len(a.Roles) != 1 || a.Expires != "2027-01-31" || a.RateLimit.Requests != 100 ||
		p.Keys[1].RateLimit.Requests != 5 || p.File != "keys.yaml" || p.Header != "X-Key" || p.Query != "key" || p.Cookie != "key" || !p.HideCredentials || !p.Optional {
		t.Errorf("got %+v", p)
	}
	for _, tc := range []struct{ text, wrong string }{
		{"rgate_api_key", "keys or file is required"},
		{"rgate_api_key {\nkeys alice my-key\n}", "invalid sha256 of key \"alice\": must be 64 hexadecimal digits: use the output of rgate hash-key, at Testfile:2"},
		{"rgate_api_key {\nkeys\n}", "key 1 requires name: set name to the consumer of the key, at Testfile:2"},
		{"rgate_api_key {\nkeys a " + keyHashA + "\nkeys b " + keyHashA + "\n}", "have the same sha256: remove one of them, or generate another key with rgate hash-key --generate, at Testfile:3"},
		{"rgate_api_key {\nkeys a " + keyHashA + " {\nscope x\n}\n}", "did you mean \"scopes\"?"},
		{"rgate_api_key {\nkeys a " + keyHashA + " {\nrate_limit 5\n}\n}", "window is required: set the time in which 5 requests are allowed, such as 60s, at Testfile:3"},
	} {
		if err := options.Unmarshal(testkit.Dispenser(tc.text), new(APIKey)); err == nil || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: got %v, want %q", tc.text, err, tc.wrong)
		}
	}
}

// TestAPIKeyServesAfterCleanup checks that requests in flight survive a reload.
func TestAPIKeyServesAfterCleanup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	text := fmt.Sprintf("- {name: alice, sha256: %s, rate_limit: {requests: 5, window: 1h}}\n", keyHash("one"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	p := &APIKey{Options: Options{File: path}}
	if err := p.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if _, seen := testkit.Serve(t, p, testkit.Request("/", "X-API-Key", "one")); seen == nil {
		t.Error("a request under way is refused")
	}
}

func BenchmarkAPIKey(b *testing.B) {
	p := &APIKey{Options: Options{Keys: []Key{{Name: "alice", SHA256: keyHash("3EA5x9WQYtVhKxNMvMJ3vnVuwrRPM9tYqB1hY0lVwM8"), Scopes: []string{"pay", "refund"}}}}}
	testkit.Provision(b, p)
	r := testkit.Request("/", "X-API-Key", "3EA5x9WQYtVhKxNMvMJ3vnVuwrRPM9tYqB1hY0lVwM8")
	b.Run("judge", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.authenticate(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("request alone", func(b *testing.B) { // baseline of "serve"
		b.ReportAllocs()
		for b.Loop() {
			testkit.Request("/", "X-API-Key", "3EA5x9WQYtVhKxNMvMJ3vnVuwrRPM9tYqB1hY0lVwM8")
		}
	})
	b.Run("serve", func(b *testing.B) {
		next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
		w := httptest.NewRecorder()
		b.ReportAllocs()
		for b.Loop() {
			r := testkit.Request("/", "X-API-Key", "3EA5x9WQYtVhKxNMvMJ3vnVuwrRPM9tYqB1hY0lVwM8")
			if err := p.ServeHTTP(w, r, next); err != nil {
				b.Fatal(err)
			}
		}
	})
}
