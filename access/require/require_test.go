package require

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

func TestRequire(t *testing.T) {
	token := &identity.Identity{
		User: "alice", Scopes: []string{"read", "write"}, Roles: []string{"editor"},
		Claims: map[string]any{
			"department": "sales", "groups": []any{"staff", "night shift", 7.0}, "verified": true, "level": 3.0,
			"realm": map[string]any{"tier": "gold"}, "example.com/plan": "pro", "nothing": nil, "big": json.Number("9007199254740993"),
		},
	}
	key := &identity.Identity{Consumer: "shop", Scopes: []string{"read"}}
	both := &identity.Identity{User: "alice", Consumer: "shop", Scopes: []string{"read"}}
	for name, tc := range map[string]struct {
		options   string
		who       *identity.Identity
		status    int
		challenge string
	}{
		"no rights, no user":        {`{}`, nil, 401, `Bearer realm="rgate"`},
		"nothing of a token":        {`{}`, token, 200, ""},
		"nothing of a key":          {`{}`, key, 200, ""},
		"a scope, no user":          {`{"scopes": ["read"]}`, nil, 401, `Bearer realm="rgate"`},
		"all scopes":                {`{"scopes": ["write", "read"]}`, token, 200, ""},
		"a scope lacks":             {`{"scopes": ["read", "pay"]}`, token, 403, `Bearer realm="rgate", error="insufficient_scope", scope="read pay"`},
		"a scope of a key lacks":    {`{"scopes": ["write"]}`, key, 403, ""},
		"any scope":                 {`{"any_scope": ["pay", "read"]}`, key, 200, ""},
		"no scope":                  {`{"any_scope": ["pay", "admin"]}`, token, 403, `Bearer realm="rgate", error="insufficient_scope", scope="pay admin"`},
		"all and any scope":         {`{"scopes": ["read"], "any_scope": ["pay", "write"]}`, token, 200, ""},
		"any role":                  {`{"roles": ["admin", "editor"]}`, token, 200, ""},
		"no role":                   {`{"roles": ["admin"]}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"no roles at all":           {`{"roles": ["admin"]}`, key, 403, ""},
		"a user":                    {`{"users": ["bob", "alice"]}`, token, 200, ""},
		"a consumer":                {`{"users": ["shop"]}`, key, 200, ""},
		"a consumer beside a user":  {`{"users": ["shop"]}`, both, 200, ""},
		"another user":              {`{"users": ["bob"]}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a scope and another user":  {`{"scopes": ["read"], "users": ["bob"]}`, key, 403, ""},
		"a claim":                   {`{"claims": {"department": "sales"}}`, token, 200, ""},
		"one of a claim's values":   {`{"claims": {"department": ["support", "sales"]}}`, token, 200, ""},
		"a claim's other value":     {`{"claims": {"department": "Sales"}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a list":                    {`{"claims": {"groups": "night shift"}}`, token, 200, ""},
		"a list with several":       {`{"claims": {"groups": ["x", "staff"]}}`, token, 200, ""},
		"a list without it":         {`{"claims": {"groups": "shift"}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a number in a list":        {`{"claims": {"groups": 7}}`, token, 200, ""},
		"true":                      {`{"claims": {"verified": true}}`, token, 200, ""},
		"true as text":              {`{"claims": {"verified": "true"}}`, token, 200, ""},
		"false":                     {`{"claims": {"verified": false}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a number":                  {`{"claims": {"level": 3}}`, token, 200, ""},
		"a large number":            {`{"claims": {"big": 9007199254740993}}`, token, 200, ""},
		"another large number":      {`{"claims": {"big": 9007199254740992}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a path":                    {`{"claims": {"realm.tier": "gold"}}`, token, 200, ""},
		"a name with dots":          {`{"claims": {"example.com/plan": "pro"}}`, token, 200, ""},
		"an object":                 {`{"claims": {"realm": "gold"}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"null":                      {`{"claims": {"nothing": ""}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a claim that is not there": {`{"claims": {"other": "x"}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"two claims":                {`{"claims": {"department": "sales", "level": 4}}`, token, 403, `Bearer realm="rgate", error="insufficient_scope"`},
		"a claim of a key":          {`{"claims": {"department": "sales"}}`, key, 403, ""},
		"off":                       {`{"disabled": true, "scopes": ["pay"]}`, nil, 200, ""},
	} {
		p := new(Require)
		if err := caddy.StrictUnmarshalJSON([]byte(tc.options), p); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := testkit.TryProvision(t, p); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := testkit.Request("/")
		if tc.who != nil {
			identity.Add(r, *tc.who)
		}
		w, seen := testkit.Serve(t, p, r)
		if w.Code != tc.status || (seen != nil) != (tc.status == 200) {
			t.Errorf("%s: got %d, want %d", name, w.Code, tc.status)
		}
		if got := w.Header().Get("WWW-Authenticate"); got != tc.challenge {
			t.Errorf("%s: the challenge is %q, want %q", name, got, tc.challenge)
		}
	}
}

// TestRequireBehindBasicAuth checks that any handler that sets the user can authenticate.
func TestRequireBehindBasicAuth(t *testing.T) {
	for options, want := range map[string]int{`{}`: 200, `{"users": ["alice"]}`: 200, `{"users": ["bob"]}`: 403, `{"scopes": ["read"]}`: 403} {
		p := new(Require)
		if err := caddy.StrictUnmarshalJSON([]byte(options), p); err != nil {
			t.Fatal(err)
		}
		testkit.Provision(t, p)
		r := testkit.Request("/")
		r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", "alice")
		if w, _ := testkit.Serve(t, p, r); w.Code != want || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%s: got %d and %v, want %d", options, w.Code, w.Header(), want)
		}
	}
}

// TestRequireBehindOptionalKey checks that the challenge includes an API key if one is
// accepted.
func TestRequireBehindOptionalKey(t *testing.T) {
	p := new(Require)
	testkit.Provision(t, p)
	r := testkit.Request("/")
	identity.AcceptAPIKey(r)
	w, _ := testkit.Serve(t, p, r)
	if got := strings.Join(w.Header().Values("WWW-Authenticate"), "|"); w.Code != 401 || got != `Bearer realm="rgate"|ApiKey realm="rgate"` {
		t.Errorf("got %d and %q", w.Code, got)
	}
}

func TestRequireErrors(t *testing.T) {
	for text, want := range map[string][2]string{
		`{"scopes": ["read write"]}`:     {"scopes", `invalid value "read write" of scopes: must be a string of one or more printable ASCII characters, without spaces, quotes or backslashes`},
		`{"any_scope": [""]}`:            {"any_scope", `invalid value "" of any_scope`},
		`{"roles": ["a\n"]}`:             {"roles", "of one or more printable characters, without surrounding spaces"},
		`{"users": [""]}`:                {"users", `invalid value "" of users`},
		`{"claims": {"department": []}}`: {"claims.department", `invalid claim "department": must have a name and values`},
	} {
		p := new(Require)
		if err := caddy.StrictUnmarshalJSON([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		err := p.Check()
		var about *options.Error
		if !errors.As(err, &about) || about.Field() != want[0] || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("%s: got %v, want one about %s with %q", text, err, want[0], want[1])
		}
	}
	for _, text := range []string{`{"claims": {"a": {"b": 1}}}`, `{"claims": {"a": null}}`, `{"claims": {"a": [["b"]]}}`} {
		if err := caddy.StrictUnmarshalJSON([]byte(text), new(Require)); err == nil || !strings.Contains(err.Error(), "invalid claim value: must be a string, a number, true or false") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestRequireCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_require":                  `{}`,
		"rgate_require off":              `{"disabled":true}`,
		"rgate_require read write":       `{"scopes":["read","write"]}`,
		"rgate_require {\nscopes a b\n}": `{"scopes":["a","b"]}`,
		"rgate_require {\nany_scope a b\nroles admin\nusers alice bob\nclaims department sales support\nclaims verified true\n}": `{"any_scope":["a","b"],"roles":["admin"],"users":["alice","bob"],"claims":{"department":["sales","support"],"verified":"true"}}`,
		"rgate_require {\nclaims {\ndepartment sales\nrealm.tier gold\n}\n}":                                                     `{"claims":{"department":"sales","realm.tier":"gold"}}`,
	} {
		p := new(Require)
		if err := options.Unmarshal(testkit.Dispenser(text), p); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := json.Marshal(p)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s and %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"rgate_require {\nclaims a\n}":    "requires a value",
		"rgate_require {\nscope a\n}":     `did you mean "scopes"?`,
		"rgate_require {\nscopes \"\"\n}": `invalid value "" of scopes: must be a string of one or more printable ASCII characters, without spaces, quotes or backslashes, at Testfile:2`,
	} {
		if err := options.Unmarshal(testkit.Dispenser(text), new(Require)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func BenchmarkRequire(b *testing.B) {
	p := &Require{Scopes: []string{"read", "pay"}, Roles: []string{"admin", "editor"}, Claims: map[string]identity.ClaimValues{"realm.tier": {"gold"}}}
	testkit.Provision(b, p)
	r := testkit.Request("/")
	identity.Add(r, identity.Identity{User: "alice", Scopes: []string{"read", "write", "pay"}, Roles: []string{"editor"}, Claims: map[string]any{"realm": map[string]any{"tier": "gold"}}})
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		if err := p.ServeHTTP(nil, r, next); err != nil {
			b.Fatal(err)
		}
	}
}
