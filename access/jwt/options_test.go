package jwt

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/testkit"
)

func TestJWTOptionsAreChecked(t *testing.T) {
	rs, hs := []string{"RS256"}, []string{"HS256"}
	negative, long := caddy.Duration(-1), caddy.Duration(maxLeeway+1)
	const url = "https://id.example.com/keys"
	for _, tc := range []struct {
		options      Options
		field, wants string
	}{
		{Options{}, "algorithms", "algorithms is required"},
		{Options{Algorithms: []string{"RS256", "none"}}, "algorithms[1]", "must be an algorithm that signs tokens"},
		{Options{Algorithms: []string{"None"}}, "algorithms[0]", "must be an algorithm that signs tokens"},
		{Options{Algorithms: []string{"rs256"}}, "algorithms[0]", `did you mean "RS256"?`},
		{Options{Algorithms: []string{"HS256", "RS256"}, Secret: jwtSecret}, "algorithms[1]", "HS256 and RS256 cannot be combined"},
		{Options{Algorithms: []string{"ES256", "HS256"}, JWKSURL: url}, "algorithms[1]", "algorithms ES256 and HS256 cannot be combined"},
		{Options{Algorithms: rs}, "algorithms", "set one of public_key"},
		{Options{Algorithms: hs}, "algorithms", "set secret"},
		{Options{Algorithms: rs, JWKSURL: url, PublicKeyFile: "x"}, "jwks_url", "remove one of them"},
		{Options{Algorithms: rs, JWKSURL: url, Discovery: true, Issuer: url}, "discovery", "remove one of them"},
		{Options{Algorithms: hs, PublicKey: "x"}, "public_key", "and algorithm HS256 cannot be combined"},
		{Options{Algorithms: hs, JWKSURL: url}, "jwks_url", "and algorithm HS256 cannot be combined"},
		{Options{Algorithms: rs, Secret: jwtSecret}, "secret", "algorithm RS256 cannot be combined"},
		{Options{Algorithms: rs, Discovery: true}, "discovery", "discovery requires issuer"},
		{Options{Algorithms: rs, Discovery: true, Issuer: "accounts.example.com"}, "issuer", "must be a URL"},
		{Options{Algorithms: rs, JWKSURL: "file:///keys"}, "jwks_url", "must be a URL"},
		{Options{Algorithms: rs, JWKSURL: "https://me:secret@id.example.com/"}, "jwks_url", "must not contain a user"},
		{Options{Algorithms: hs, Secret: jwtSecret[1:]}, "secret", "invalid secret of 31 bytes: HS256 requires at least 32: generate a secret with `openssl rand -base64 32`"},
		{Options{Algorithms: []string{"HS512", "HS256"}, Secret: jwtSecret}, "secret", "requires at least 64"},
		{Options{Algorithms: []string{"HS384"}, Secret: jwtSecret}, "secret", "requires at least 48"},
		{Options{Algorithms: rs, JWKSURL: url, TokenFrom: []string{"cookie:a", "Authorization"}}, "token_from[1]", "must be header:NAME"},
		{Options{Algorithms: rs, JWKSURL: url, TokenFrom: []string{"header:"}}, "token_from[0]", "must be header:NAME"},
		{Options{Algorithms: rs, JWKSURL: url, TokenFrom: []string{"cookie:a b"}}, "token_from[0]", "must be header:NAME"},
		{Options{Algorithms: rs, JWKSURL: url, TokenFrom: []string{"header:x-a", "header:X-A"}}, "token_from[1]", "duplicate token_from"},
		{Options{Algorithms: rs, JWKSURL: url, Audience: []string{"a", ""}}, "audience[1]", "must not be empty"},
		{Options{Algorithms: rs, JWKSURL: url, Leeway: &negative}, "leeway", "must be 0s to 1h"},
		{Options{Algorithms: rs, JWKSURL: url, Leeway: &long}, "leeway", "must be 0s to 1h"},
		{Options{Algorithms: rs, JWKSURL: url, CacheSize: -2}, "cache_size", "or -1 for no cache"},
		{Options{Algorithms: rs, JWKSURL: url, Realm: `a"b`}, "realm", `invalid realm "a\"b": must not contain quotes, backslashes, control characters or surrounding spaces`},

		{Options{Algorithms: hs, Secret: "{env.SECRET}"}, "", ""},
		{Options{Algorithms: rs, JWKSURL: "{env.URL}", Audience: []string{"a"}}, "", ""},
		{Options{Algorithms: rs, Issuer: "anything", JWKSURL: url}, "", ""},
	} {
		err := (&JWT{Options: tc.options}).Check()
		if tc.wants == "" {
			if err != nil {
				t.Errorf("%+v: %v", tc.options, err)
			}
			continue
		}
		var field interface{ Field() string }
		if err == nil || !strings.Contains(err.Error(), tc.wants) || !errors.As(err, &field) || field.Field() != tc.field {
			t.Errorf("%+v: got %v, want %s: %s", tc.options, err, tc.field, tc.wants)
		}
		if provisioned := testkit.TryProvision(t, &JWT{Options: tc.options}); provisioned == nil {
			t.Errorf("%+v: is provisioned", tc.options)
		}
	}
}

func TestJWTPlaceholdersAreReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(jwtSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JWT_TEST_SHORT", "{short}")
	t.Setenv("JWT_TEST_EMPTY", "")
	hs := []string{"HS256"}
	for _, tc := range []struct{ secret, fails string }{
		{"{file." + file + "}", ""},
		{"{env.JWT_TEST_SHORT}", "invalid secret of 7 bytes"},
		{"{env.JWT_TEST_EMPTY}", "secret has an unknown or empty placeholder"},
		{"{file./nonexistent}", "secret has an unknown or empty placeholder"},
		{jwtSecret + "{unknown}", "write \\{ for a literal brace"},
		{jwtSecret + `\{unknown}`, ""},
	} {
		p := &JWT{Options: Options{Algorithms: hs, Secret: tc.secret}}
		err := testkit.TryProvision(t, p)
		if tc.fails == "" && err != nil || tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)) {
			t.Errorf("%q: got %v, want %q", tc.secret, err, tc.fails)
		}
		if err != nil && strings.Contains(err.Error(), jwtSecret) {
			t.Errorf("%q: the error has the secret in it", tc.secret)
		}
	}
	p := jwtProvision(t, Options{Algorithms: hs, Secret: "{file." + file + "}"})
	if got := string(p.verifier.keys.keys[0].material.([]byte)); got != jwtSecret {
		t.Errorf("the secret is %q", got)
	}
}

func TestJWTKeysMustSuit(t *testing.T) {
	folder := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(folder, "key.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ec := []string{"ES256"}
	for name, tc := range map[string]struct {
		options      Options
		field, fails string
	}{
		"other kind of key":  {Options{Algorithms: ec, PublicKey: jwtPEM(t, jwtRSA().Public())}, "public_key", "contains no key for the algorithms ES256:"},
		"other curve":        {Options{Algorithms: ec, PublicKey: jwtPEM(t, jwtEC384().Public())}, "public_key", "contains no key for the algorithms"},
		"not PEM":            {Options{Algorithms: ec, PublicKey: "MIIB"}, "public_key", "invalid PEM"},
		"no file":            {Options{Algorithms: ec, PublicKeyFile: "/nonexistent"}, "public_key_file", "no such file"},
		"file of other keys": {Options{Algorithms: ec, PublicKeyFile: write(jwtPEM(t, jwtRSA().Public()))}, "public_key_file", "key.pem: public_key_file contains no key for"},
		"not JSON":           {Options{Algorithms: ec, JWKS: "keys"}, "jwks", "invalid JWK Set"},
		"no keys":            {Options{Algorithms: ec, JWKS: "{}"}, "jwks", "the list of keys is empty"},
	} {
		err := testkit.TryProvision(t, &JWT{Options: tc.options})
		var field interface{ Field() string }
		if err == nil || !strings.Contains(err.Error(), tc.fails) || !errors.As(err, &field) || field.Field() != tc.field {
			t.Errorf("%s: got %v, want %s: %s", name, err, tc.field, tc.fails)
		}
	}
}

func TestJWKSInJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"keys": []}`: `{"keys":[]}`, `"{\"keys\": []}"`: `{"keys":[]}`, `"x"`: `"x"`,
	} {
		var set JWKS
		if err := json.Unmarshal([]byte(text), &set); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := jwtJSON(t, set); got != want {
			t.Errorf("%s becomes %s", text, got)
		}
	}
}
