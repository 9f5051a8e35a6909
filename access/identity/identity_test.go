package identity

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/internal/trust"
)

func TestIdentityGrows(t *testing.T) {
	r := testkit.Request("/", "X-User-ID", "root", "X-Consumer-Scopes", "all")
	if Of(r) != nil {
		t.Error("a request has an identity before authentication")
	}
	trust.StripIdentity(r)
	shared := []string{"read", "write", "delete"}[:2]
	Add(r, Identity{User: "alice", Scopes: shared, Roles: []string{"admin"}, Claims: map[string]any{"a": "b"}})
	if h := r.Header; h.Get("X-User-ID") != "alice" || h.Get("X-Consumer-Username") != "" || h.Get("X-Consumer-Scopes") != "read write" {
		t.Errorf("after the token, the backend gets %v", h)
	}
	trust.StripIdentity(r) // as the next policy does
	Add(r, Identity{Consumer: "shop", Scopes: []string{"write", "pay"}})
	if h := r.Header; h.Get("X-User-ID") != "alice" || h.Get("X-Consumer-Username") != "shop" || h.Get("X-Consumer-Scopes") != "read write pay" {
		t.Errorf("after the key, the backend gets %v", h)
	}
	if all := shared[:3]; !slices.Equal(all, []string{"read", "write", "delete"}) {
		t.Errorf("the list of other requests became %q", all)
	}
	for name, want := range map[string]string{
		"id": "alice", "consumer": "shop", "scopes": "read write pay", "roles": "admin", "claims.a": "b", "claims.c": "", "nothing": "",
	} {
		if got := testkit.Placeholder(r, "http.auth.user."+name); got != want {
			t.Errorf("{http.auth.user.%s} is %q, want %q", name, got, want)
		}
	}
	if who := Of(r); who.Name() != "alice" {
		t.Errorf("the name is %q", who.Name())
	}
}

func TestIdentityOfOthers(t *testing.T) {
	r := testkit.Request("/")
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", "bob") // as basic_auth does
	if who := Of(r); who == nil || who.User != "bob" {
		t.Errorf("got %+v", who)
	}
	Add(r, Identity{Consumer: "shop"})
	if got := testkit.Placeholder(r, "http.auth.user.id"); got != "shop" {
		t.Errorf("the sender is %q", got)
	}
}

func TestIdentityCannotInject(t *testing.T) {
	for value, want := range map[string]string{
		"alice": "alice", "Zoë": "Zoë", "a b": "a b",
		"a\r\nX-Admin: 1": "", "a\nb": "", "a\x00": "", "a\x7f": "", "\ta": "", " a": "", "a ": "", "a\u00a0": "", "": "",
	} {
		r := testkit.Request("/")
		trust.StripIdentity(r)
		Add(r, Identity{User: value, Consumer: value, Scopes: []string{value}})
		for _, field := range []string{trust.HeaderUserID, trust.HeaderConsumerUsername, trust.HeaderConsumerScopes} {
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
		t.Error("no claims have a claim")
	}
	for claim, want := range map[any]string{"x": "x", true: "true", json.Number("7"): "7", nil: ""} {
		if got := caddy.ToString(placeholderValue(claim)); got != want {
			t.Errorf("%v is written %q", claim, got)
		}
	}
	if got := placeholderValue([]any{"a", map[string]any{"b": json.Number("1")}}); got != `["a",{"b":1}]` {
		t.Errorf("a list is written %v", got)
	}
}
