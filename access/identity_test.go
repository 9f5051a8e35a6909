package access

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

func identityPlaceholder(r *http.Request, name string) string {
	text, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.auth.user." + name)
	return text
}

func TestIdentityGrows(t *testing.T) {
	r, _ := jwtRequest("/", "X-User-ID", "root", "X-Consumer-Scopes", "all")
	if identityOf(r) != nil {
		t.Error("a request has an identity before anybody looked for it")
	}
	policy.StripIdentity(r)
	shared := []string{"read", "write", "delete"}[:2]
	identify(r, identity{user: "alice", scopes: shared, roles: []string{"admin"}, claims: map[string]any{"a": "b"}})
	if h := r.Header; h.Get("X-User-ID") != "alice" || h.Get("X-Consumer-Username") != "" || h.Get("X-Consumer-Scopes") != "read write" {
		t.Errorf("after the token, the backend gets %v", h)
	}
	policy.StripIdentity(r) // of the next policy
	identify(r, identity{consumer: "shop", scopes: []string{"write", "pay"}})
	if h := r.Header; h.Get("X-User-ID") != "alice" || h.Get("X-Consumer-Username") != "shop" || h.Get("X-Consumer-Scopes") != "read write pay" {
		t.Errorf("after the key, the backend gets %v", h)
	}
	if all := shared[:3]; !slices.Equal(all, []string{"read", "write", "delete"}) {
		t.Errorf("a list that belongs to other requests has become %q", all)
	}
	for name, want := range map[string]string{
		"id": "alice", "consumer": "shop", "scopes": "read write pay", "roles": "admin", "claims.a": "b", "claims.c": "", "nothing": "",
	} {
		if got := identityPlaceholder(r, name); got != want {
			t.Errorf("{http.auth.user.%s} is %q, want %q", name, got, want)
		}
	}
	if who := identityOf(r); who.name() != "alice" {
		t.Errorf("the name is %q", who.name())
	}
}

func TestIdentityOfOthers(t *testing.T) {
	r, _ := jwtRequest("/")
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", "bob") // as basic_auth does
	if who := identityOf(r); who == nil || who.user != "bob" {
		t.Errorf("got %+v", who)
	}
	identify(r, identity{consumer: "shop"})
	if got := identityPlaceholder(r, "id"); got != "shop" {
		t.Errorf("the sender is %q", got)
	}
}

func TestIdentityIsNoInjection(t *testing.T) {
	for value, want := range map[string]string{
		"alice": "alice", "Zoë": "Zoë", "a b": "a b",
		"a\r\nX-Admin: 1": "", "a\nb": "", "a\x00": "", "a\x7f": "", "\ta": "", " a": "", "a ": "", "a\u00a0": "", "": "",
	} {
		r, _ := jwtRequest("/")
		policy.StripIdentity(r)
		identify(r, identity{user: value, consumer: value, scopes: []string{value}})
		for _, field := range []string{policy.HeaderUserID, policy.HeaderConsumerUsername, policy.HeaderConsumerScopes} {
			if got := r.Header.Get(field); got != want {
				t.Errorf("%s of %q is %q", field, value, got)
			}
		}
	}
}

func TestClaimsAreFound(t *testing.T) {
	var claims map[string]any
	if err := json.Unmarshal([]byte(`{
		"sub": "alice", "a.b": "dotted", "a": {"b": "nested", "c": {"d": [1, "x"]}, "e.f": {"g": null}}, "n": 1.5, "list": [{"b": 1}]
	}`), &claims); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"sub": `"alice"`, "a.b": `"dotted"`, "a.c.d": `[1,"x"]`, "a.e.f.g": "null", "a.c": `{"d":[1,"x"]}`, "n": "1.5",
		"x": "", "": "", ".": "", "a.": "", "sub.x": "", "a.c.d.1": "", "list.b": "", "a.b.c": "",
	} {
		value, ok := claimAt(claims, path)
		if got, _ := json.Marshal(value); ok != (want != "") || ok && string(got) != want {
			t.Errorf("%s is %s, %v, want %s", path, got, ok, want)
		}
	}
	if _, ok := claimAt(nil, "a"); ok {
		t.Error("nobody has a claim")
	}
	for claim, want := range map[any]string{"x": "x", true: "true", json.Number("7"): "7", nil: ""} {
		if got := caddy.ToString(asText(claim)); got != want {
			t.Errorf("%v is written %q", claim, got)
		}
	}
	if got := asText([]any{"a", map[string]any{"b": json.Number("1")}}); got != `["a",{"b":1}]` {
		t.Errorf("a list is written %v", got)
	}
}
