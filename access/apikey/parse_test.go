package apikey

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/access/ratelimit"
)

const (
	keyHashA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" // hash of "a"
	keyHashB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d" // hash of "b"
)

func TestParseKeys(t *testing.T) {
	const sameInYAML = `# consumers
- name: alice
  sha256: ` + keyHashA + `
  scopes: [pay, refund]
  roles: [admin]
  expires: 2027-01-31
  rate_limit: {requests: 5, window: 10s}
- {name: "007", sha256: ` + keyHashB + `}
`
	const sameInJSON = "[\n\t{\n\t\t\"name\": \"alice\",\t\"sha256\": \"" + keyHashA + "\",\n\t\t\"scopes\": [\"pay\", \"refund\"], \"roles\": [\"admin\"],\n" +
		"\t\t\"expires\": \"2027-01-31T00:00:00Z\", \"rate_limit\": {\"requests\": 5, \"window\": 10000000000}\n\t},\n\t{\"name\": \"007\", \"sha256\": \"" + keyHashB + "\"}\n]\n"
	for syntax, text := range map[string]string{"YAML": sameInYAML, "JSON": sameInJSON} {
		keys, err := parseKeys([]byte(text))
		if err != nil || len(keys) != 2 {
			t.Fatalf("%s: got %d keys and %v", syntax, len(keys), err)
		}
		a, b := keys.find("a"), keys.find("b")
		if a == nil || a.who.Consumer != "alice" || strings.Join(a.who.Scopes, " ") != "pay refund" || strings.Join(a.who.Roles, " ") != "admin" ||
			!a.expires.Equal(parsedTime(t, "2027-01-31T00:00:00Z")) || a.limit != (ratelimit.Limit{Requests: 5, Window: caddy.Duration(10 * time.Second)}) {
			t.Errorf("%s: the first key is %+v", syntax, a)
		}
		if b == nil || b.who.Consumer != "007" || !b.expires.IsZero() || b.limit != (ratelimit.Limit{}) {
			t.Errorf("%s: the second key is %+v", syntax, b)
		}
	}
	if keys, err := parseKeys([]byte("[]")); err != nil || len(keys) != 0 {
		t.Errorf("no keys: got %v and %v", keys, err)
	}
	if _, err := parseKeys([]byte("- &a {name: a, sha256: " + keyHashA + "}\n- {<<: *a, sha256: " + keyHashB + "}\n")); err != nil {
		t.Errorf("a key that goes on with another's options: %v", err)
	}
}

func TestWrongKeyFiles(t *testing.T) {
	const secret = "mysecretkey"
	for _, tc := range []struct{ text, wrong string }{
		{"", "the file is empty: write [] for no keys"},
		{"# nothing\n", "the file is empty"},
		{"---\n", "must be a list of keys"},
		{"keys:\n- name: a\n", "line 1: invalid key file: must be a list of keys such as - {name: …, sha256: …}"},
		{"[]\n---\n[]\n", "several documents"},
		{"- name: a\n  sha256: [\n", "line 2: "},
		{"- " + secret + "\n", "line 1: invalid key: must be a map such as {name: …, sha256: …}"},
		{"- {name: a, sha256: " + secret + "}\n", `line 1: invalid sha256 of key "a": must be 64 hexadecimal digits`},
		{"- {name: a, sha256: " + keyHashA + "}\n\n- {name: b, sha256: " + keyHashA + "}\n", `line 3: keys of "a" and "b" have the same sha256`},
		{"- {name: a, sha256: " + keyHashA + "}\n- {sha256: " + keyHashB + "}\n", "line 2: key 2 requires name"},
		{"- {name: a, sha256: " + keyHashA + ", scope: [x]}\n", `line 1: unknown option "scope" (did you mean "scopes"?): use name, sha256, scopes`},
		{"- {" + secret + "}\n", "line 1: unknown option: use name, sha256, scopes"},
		{"- {name: a, sha256: " + keyHashA + ", scopes: pay}\n", "line 1: scopes must be a list of strings in quotes"},
		{"- {name: a, sha256: " + keyHashA + ", scopes: 5}\n", "line 1: scopes must be a list of strings in quotes"},
		{"- {name: a, sha256: " + keyHashA + ", scopes: [1]}\n", "line 1: scopes must be a list of strings in quotes"},
		{"- {name: a, sha256: " + keyHashA + ", rate_limit: 5}\n", "line 1: rate_limit must be a map"},
		{"- {name: 7, sha256: " + keyHashA + "}\n", "line 1: name must be a string in quotes"},
		{"- {name: a, sha256: " + keyHashA + ", expires: 2027}\n", "line 1: expires must be a string in quotes"},
		{"- {name: a, name: b}\n", `line 1: mapping key "name" already defined at line 1`},
		{"- {name: a, sha256: " + keyHashA + ", rate_limit: {requests: many}}\n", "line 1: rate_limit.requests must be a whole number"},
		{"- {name: a, sha256: " + keyHashA + ", rate_limit: {requests: 1, window: long}}\n", "line 1: invalid window: must be a duration such as 60s"},
		{"- {name: a, sha256: " + keyHashA + ", rate_limit: {requests: 0}}\n", "line 1: requests and window are required"},
		{"- {name: a, [1]: b}\n", "line 1: "},
		{"- &a [*a]\n", "line 1: "},
	} {
		keys, err := parseKeys([]byte(tc.text))
		if err == nil || keys != nil || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%q: got %v and %v, want an error with %q", tc.text, keys, err, tc.wrong)
		}
		if err != nil && strings.Contains(err.Error(), secret[:5]) {
			t.Errorf("%q: the error shows the key: %v", tc.text, err)
		}
	}
}

// FuzzParseKeys checks that a file is either rejected, or that each of its keys can be
// found and has a name that can be forwarded.
func FuzzParseKeys(f *testing.F) {
	f.Add("- {name: alice, sha256: " + keyHashA + ", scopes: [pay], expires: 2027-01-31, rate_limit: {requests: 5, window: 10s}}\n")
	f.Add(`[{"name": "alice", "sha256": "` + keyHashA + `"}]`)
	f.Add("- &a {name: a, sha256: " + keyHashA + "}\n- {<<: *a, sha256: " + keyHashB + "}\n")
	f.Add("- &a [*a]\n---\n{}")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys([]byte(text))
		if (err == nil) != (keys != nil) {
			t.Fatalf("got %v and %v", keys, err)
		}
		for digest, held := range keys {
			if held.digest != digest || !identity.IsPrintable(held.who.Consumer) || held.limit.Requests < 0 {
				t.Errorf("got %+v", held)
			}
		}
	})
}
