package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/golang-jwt/jwt/v5"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

const jwtSecret = "0123456789abcdef0123456789abcdef"

// Test keys, created on first use.
var (
	jwtRSA      = sync.OnceValue(func() *rsa.PrivateKey { return jwtMade(rsa.GenerateKey(rand.Reader, 2048)) })
	jwtOtherRSA = sync.OnceValue(func() *rsa.PrivateKey { return jwtMade(rsa.GenerateKey(rand.Reader, 2048)) })
	jwtEC       = sync.OnceValue(func() *ecdsa.PrivateKey { return jwtMade(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	jwtEC384    = sync.OnceValue(func() *ecdsa.PrivateKey { return jwtMade(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	jwtEC521    = sync.OnceValue(func() *ecdsa.PrivateKey { return jwtMade(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	jwtEd       = sync.OnceValue(func() ed25519.PrivateKey {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return jwtMade(key, err)
	})
)

func jwtMade[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// jwtPEM encodes public keys as PEM.
func jwtPEM(t testing.TB, keys ...any) (text string) {
	t.Helper()
	for _, key := range keys {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: jwtMade(x509.MarshalPKIXPublicKey(key))}))
	}
	return text
}

// jwtClaims returns the claims of a valid token with changes applied. nil removes a
// claim.
func jwtClaims(changes map[string]any) jwt.MapClaims {
	claims := jwt.MapClaims{
		"iss": "https://id.example.com", "sub": "alice", "aud": "api", "scope": "read write",
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// jwtSign creates a token with a different library than the gateway's.
func jwtSign(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// jwtByHand creates a token from a raw header and payload, signed with HMAC-SHA256.
func jwtByHand(header, payload string, key []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func jwtJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// jwtProvision returns a provisioned policy.
func jwtProvision(t testing.TB, options Options) *JWT {
	t.Helper()
	return testkit.Provision(t, &JWT{Options: options})
}

func jwtRequest(target string, header ...string) (*http.Request, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[http.CanonicalHeaderKey(header[i])] = append(r.Header[http.CanonicalHeaderKey(header[i])], header[i+1])
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server)), w
}

// jwtServe sends a request through a policy. It returns the request that the backend
// receives, or nil if the policy rejects the request.
func jwtServe(t testing.TB, p *JWT, r *http.Request, w http.ResponseWriter) (passed *http.Request) {
	t.Helper()
	if err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		passed = r
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	return passed
}

const (
	jwtBare    = `Bearer realm="rgate"`
	jwtInvalid = `Bearer realm="rgate", error="invalid_token"`
	jwtWrong   = `Bearer realm="rgate", error="invalid_request"`
)

func TestJWTResponses(t *testing.T) {
	p := jwtProvision(t, Options{
		Algorithms: []string{"RS256"}, PublicKey: jwtPEM(t, jwtRSA().Public()),
		Issuer: "https://id.example.com", Audience: []string{"web", "api"},
		TokenFrom: []string{"header:Authorization", "cookie:session", "query:access_token", "header:X-Token"},
	})
	signed := func(changes map[string]any) string {
		return jwtSign(t, jwt.SigningMethodRS256, jwtRSA(), "", jwtClaims(changes))
	}
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	now, good := time.Now(), signed(nil)
	public := jwtPEM(t, jwtRSA().Public())
	der := jwtMade(x509.MarshalPKIXPublicKey(jwtRSA().Public()))
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	for _, tc := range []struct {
		name, target string
		header       []string
		status       int
		challenge    string
	}{
		{"valid", "/", bearer(good), 200, ""},
		{"valid, scheme in lower case", "/", []string{"authorization", "bearer " + good}, 200, ""},
		{"valid in a cookie", "/", []string{"Cookie", "a=b; session=" + good}, 200, ""},
		{"valid in the query", "/?a=b&access_token=" + good, nil, 200, ""},
		{"valid in a query with escapes", "/?%61ccess_token=" + good, nil, 200, ""},
		{"valid in a header of its own", "/", []string{"X-Token", good}, 200, ""},
		{"valid in a header of its own, with a scheme", "/", []string{"X-Token", "Bearer " + good}, 200, ""},
		{"valid with another key's ID", "/", bearer(jwtSign(t, jwt.SigningMethodRS256, jwtRSA(), "x", jwtClaims(nil))), 200, ""},
		{"one of several audiences", "/", bearer(signed(map[string]any{"aud": []string{"other", "web"}})), 200, ""},
		{"expired within the leeway", "/", bearer(signed(map[string]any{"exp": now.Add(-30 * time.Second).Unix()})), 200, ""},
		{"fraction of a second", "/", bearer(signed(map[string]any{"exp": float64(now.Unix()) + 100.5})), 200, ""},

		{"none", "/", nil, 401, jwtBare},
		{"another scheme", "/", []string{"Authorization", "Basic YTpi"}, 401, jwtBare},
		{"empty cookie", "/", []string{"Cookie", "session="}, 401, jwtBare},
		{"empty query", "/?access_token=", nil, 401, jwtBare},
		{"garbage", "/", bearer("garbage"), 401, jwtInvalid},
		{"dots", "/", bearer(".."), 401, jwtInvalid},
		{"five parts", "/", bearer("a.b.c.d.e"), 401, jwtInvalid},
		{"not base64", "/", bearer("!!!.???.###"), 401, jwtInvalid},
		{"line break", "/?access_token=" + parts[0] + "%0A." + parts[1] + "." + parts[2], nil, 401, jwtInvalid},
		{"too long", "/", bearer(good + strings.Repeat("A", maxTokenLength)), 401, jwtInvalid},
		{"expired", "/", bearer(signed(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()})), 401, jwtInvalid},
		{"no expiry", "/", bearer(signed(map[string]any{"exp": nil})), 401, jwtInvalid},
		{"expiry in text", "/", bearer(signed(map[string]any{"exp": "4000000000"})), 401, jwtInvalid},
		{"expiry out of range", "/", bearer(signed(map[string]any{"exp": 1e300})), 401, jwtInvalid},
		{"not valid yet", "/", bearer(signed(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()})), 401, jwtInvalid},
		{"issued in the future", "/", bearer(signed(map[string]any{"iat": now.Add(2 * time.Minute).Unix()})), 401, jwtInvalid},
		{"wrong start", "/", bearer(signed(map[string]any{"nbf": true})), 401, jwtInvalid},
		{"signed with another key", "/", bearer(jwtSign(t, jwt.SigningMethodRS256, jwtOtherRSA(), "", jwtClaims(nil))), 401, jwtInvalid},
		{"signature of another token", "/", bearer(parts[0] + "." + strings.Split(signed(map[string]any{"sub": "root"}), ".")[1] + "." + parts[2]), 401, jwtInvalid},
		{"no signature", "/", bearer(parts[0] + "." + parts[1] + "."), 401, jwtInvalid},
		{"alg none", "/", bearer(none + "." + parts[1] + "."), 401, jwtInvalid},
		{"alg none with a signature", "/", bearer(none + "." + parts[1] + "." + parts[2]), 401, jwtInvalid},
		{"alg in capitals", "/", bearer(strings.ReplaceAll(none, "bm9uZ", "Tm9uZ") + "." + parts[1] + "."), 401, jwtInvalid},
		{"HS256 with the public key in PEM", "/", bearer(jwtByHand(`{"alg":"HS256"}`, jwtJSON(t, jwtClaims(nil)), []byte(public))), 401, jwtInvalid},
		{"HS256 with the public key in DER", "/", bearer(jwtByHand(`{"alg":"HS256"}`, jwtJSON(t, jwtClaims(nil)), der)), 401, jwtInvalid},
		{"RS256 with an HMAC by the public key", "/", bearer(jwtByHand(`{"alg":"RS256"}`, jwtJSON(t, jwtClaims(nil)), []byte(public))), 401, jwtInvalid},
		{"another algorithm of the same key", "/", bearer(jwtSign(t, jwt.SigningMethodPS256, jwtRSA(), "", jwtClaims(nil))), 401, jwtInvalid},
		{"key in the token", "/", bearer(jwtWithOwnKey(t)), 401, jwtInvalid},
		{"wrong issuer", "/", bearer(signed(map[string]any{"iss": "https://id.example.org"})), 401, jwtInvalid},
		{"no issuer", "/", bearer(signed(map[string]any{"iss": nil})), 401, jwtInvalid},
		{"issuers in a list", "/", bearer(signed(map[string]any{"iss": []string{"https://id.example.com"}})), 401, jwtInvalid},
		{"wrong audience", "/", bearer(signed(map[string]any{"aud": "app"})), 401, jwtInvalid},
		{"no audience", "/", bearer(signed(map[string]any{"aud": nil})), 401, jwtInvalid},
		{"user with a line break", "/", bearer(signed(map[string]any{"sub": "alice\r\nX-Admin: 1"})), 401, jwtInvalid},
		{"user with a space before", "/", bearer(signed(map[string]any{"sub": " root"})), 401, jwtInvalid},

		{"twice in one place", "/", append(bearer(good), bearer(good)...), 400, jwtWrong},
		{"another scheme besides", "/", append(bearer(good), "Authorization", "Basic YTpi"), 400, jwtWrong},
		{"twice in the query", "/?access_token=" + good + "&access_token=" + good, nil, 400, jwtWrong},
		{"twice in cookies", "/", []string{"Cookie", "session=" + good + "; session=x"}, 400, jwtWrong},
		{"different in two places", "/?access_token=" + good, bearer(good[:len(good)-2] + "xx"), 400, jwtWrong},
		{"scheme alone", "/", []string{"Authorization", "Bearer"}, 400, jwtWrong},
		{"scheme and spaces", "/", []string{"Authorization", "Bearer  "}, 400, jwtWrong},
		{"two words", "/", bearer("a b"), 400, jwtWrong},
		{"two tokens in one field", "/", bearer(good + ",Bearer " + good), 400, jwtWrong},
	} {
		r, w := jwtRequest(tc.target, tc.header...)
		r.Header.Set("X-User-ID", "root")
		passed := jwtServe(t, p, r, w)
		if w.Code != tc.status || w.Header().Get("WWW-Authenticate") != tc.challenge || (passed != nil) != (tc.status == 200) {
			t.Errorf("%s: got %d %q", tc.name, w.Code, w.Header().Get("WWW-Authenticate"))
		}
		if passed != nil && passed.Header.Get("X-User-ID") != "alice" {
			t.Errorf("%s: the user is %q", tc.name, passed.Header.Get("X-User-ID"))
		}
		if wantPrivate := strings.Contains(tc.target, "?") && tc.status == 200; (w.Header().Get("Cache-Control") == "private") != wantPrivate {
			t.Errorf("%s: Cache-Control is %q", tc.name, w.Header().Get("Cache-Control"))
		}
		if body := w.Body.String(); tc.status != 200 && body != http.StatusText(tc.status)+"\n" {
			t.Errorf("%s: the body is %q", tc.name, body)
		}
	}
}

// jwtWithOwnKey returns a token signed with a key that its header contains.
func jwtWithOwnKey(t *testing.T) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwtClaims(nil))
	token.Header["jwk"] = jwtJWK(t, jwtOtherRSA().Public(), nil)
	return jwtMade(token.SignedString(jwtOtherRSA()))
}

func TestJWTAlgorithms(t *testing.T) {
	long := jwtSecret + jwtSecret
	for _, tc := range []struct {
		method jwt.SigningMethod
		key    any
		public any
	}{
		{jwt.SigningMethodHS256, []byte(long), nil}, {jwt.SigningMethodHS384, []byte(long), nil}, {jwt.SigningMethodHS512, []byte(long), nil},
		{jwt.SigningMethodRS256, jwtRSA(), jwtRSA().Public()}, {jwt.SigningMethodRS384, jwtRSA(), jwtRSA().Public()}, {jwt.SigningMethodRS512, jwtRSA(), jwtRSA().Public()},
		{jwt.SigningMethodPS256, jwtRSA(), jwtRSA().Public()}, {jwt.SigningMethodPS384, jwtRSA(), jwtRSA().Public()}, {jwt.SigningMethodPS512, jwtRSA(), jwtRSA().Public()},
		{jwt.SigningMethodES256, jwtEC(), jwtEC().Public()}, {jwt.SigningMethodES384, jwtEC384(), jwtEC384().Public()}, {jwt.SigningMethodES512, jwtEC521(), jwtEC521().Public()},
		{jwt.SigningMethodEdDSA, jwtEd(), jwtEd().Public()},
	} {
		options := Options{Algorithms: []string{tc.method.Alg()}, Secret: long}
		if tc.public != nil {
			options.Secret, options.PublicKey = "", jwtPEM(t, tc.public)
		}
		p := jwtProvision(t, options)
		for name, want := range map[string]int{"good": 200, "bad": 401} {
			token := jwtSign(t, tc.method, tc.key, "", jwtClaims(nil))
			if name == "bad" {
				at := strings.LastIndexByte(token, '.') + 5
				token = token[:at] + string(token[at]^1|0x40) + token[at+1:]
				token = strings.Replace(token, "`", "B", 1)
			}
			r, w := jwtRequest("/", "Authorization", "Bearer "+token)
			if jwtServe(t, p, r, w); w.Code != want {
				t.Errorf("%s, %s: got %d", tc.method.Alg(), name, w.Code)
			}
		}
	}
}

func TestJWTIdentity(t *testing.T) {
	p := jwtProvision(t, Options{
		Algorithms: []string{"HS256"}, Secret: jwtSecret, HideCredentials: true,
		UserClaim: "user.name", ScopeClaim: "permissions", RolesClaim: "realm_access.roles", Realm: "the shop",
	})
	expires := time.Now().Unix() + 60
	token := jwtSign(t, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(map[string]any{
		"exp": expires, "user": map[string]any{"name": "bob", "id": 12345678901234567}, "permissions": []any{"a", "b c", 1, "d"},
		"realm_access": map[string]any{"roles": []string{"admin", "Site Owner"}},
	}))
	for range 2 { // the second request uses the cache
		r, w := jwtRequest("/", "Authorization", "Bearer "+token)
		passed := jwtServe(t, p, r, w)
		if passed == nil {
			t.Fatalf("got %d", w.Code)
		}
		if got := passed.Header; len(got["Authorization"]) > 0 || got.Get("X-User-ID") != "bob" {
			t.Errorf("the backend gets %v", got)
		}
		repl := passed.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		for placeholder, want := range map[string]string{
			"id": "bob", "scopes": "a d", "roles": "admin", "consumer": "",
			"claims.sub": "alice", "claims.user.id": "12345678901234567", "claims.exp": strconv.FormatInt(expires, 10),
			"claims.user": `{"id":12345678901234567,"name":"bob"}`, "claims.nothing": "",
		} {
			if got, ok := repl.GetString("http.auth.user." + placeholder); got != want || !ok {
				t.Errorf("%s is %q, want %q", placeholder, got, want)
			}
		}
	}
	r, w := jwtRequest("/")
	if jwtServe(t, p, r, w); w.Header().Get("WWW-Authenticate") != `Bearer realm="the shop"` {
		t.Errorf("the challenge is %q", w.Header().Get("WWW-Authenticate"))
	}
}

func TestJWTOptional(t *testing.T) {
	p := jwtProvision(t, Options{Algorithms: []string{"HS256"}, Secret: jwtSecret, Optional: true})
	good := jwtSign(t, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(nil))
	for authorization, want := range map[string]int{"": 200, "Basic YTpi": 200, "Bearer " + good: 200, "Bearer " + good + "x": 401, "Bearer": 400} {
		r, w := jwtRequest("/", "X-User-ID", "root")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		passed := jwtServe(t, p, r, w)
		if w.Code != want {
			t.Errorf("%q: got %d", authorization, w.Code)
		}
		if passed != nil && passed.Header.Get("X-User-ID") == "root" {
			t.Errorf("%q: the client's word is taken for its identity", authorization)
		}
	}
}

func TestJWTOff(t *testing.T) {
	p := &JWT{Base: policy.Base{Disabled: true}}
	if err := testkit.TryProvision(t, p); err != nil {
		t.Fatal(err)
	}
	r, w := jwtRequest("/")
	if jwtServe(t, p, r, w) == nil {
		t.Error("a policy that is off refuses a request")
	}
}

func TestJWTCacheForgetsWhenTimeIsOver(t *testing.T) {
	zero := caddy.Duration(0)
	p := jwtProvision(t, Options{Algorithms: []string{"HS256"}, Secret: jwtSecret, Leeway: &zero})
	exp := float64(time.Now().UnixMilli())/1000 + 0.2
	token := jwtSign(t, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(map[string]any{"exp": exp, "iat": nil, "nbf": nil}))
	ask := func() int {
		r, w := jwtRequest("/", "Authorization", "Bearer "+token)
		jwtServe(t, p, r, w)
		return w.Code
	}
	if got := ask(); got != 200 {
		t.Errorf("before it expires: got %d", got)
	}
	testkit.Eventually(t, "the token expires", func() bool { return ask() == 401 })
}

func TestJWTProvider(t *testing.T) {
	p := &Provider{Options: Options{Algorithms: []string{"HS256"}, Secret: jwtSecret}}
	if err := testkit.TryProvision(t, p); err != nil {
		t.Fatal(err)
	}
	handler := caddyauth.Authentication{Providers: map[string]caddyauth.Authenticator{"rgate_jwt": p}}
	for authorization, want := range map[string]bool{
		"Bearer " + jwtSign(t, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(nil)): true,
		"Bearer x": false, "": false,
	} {
		r, w := jwtRequest("/", "Authorization", authorization, "X-User-ID", "root")
		called := false
		err := handler.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			called = true
			repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
			if id, _ := repl.GetString("http.auth.user.id"); id != "alice" || r.Header.Get("X-User-ID") != "alice" || identity.Of(r).Scopes[1] != "write" {
				t.Errorf("the user is %q, and the backend gets %q", id, r.Header.Get("X-User-ID"))
			}
			return nil
		}))
		var refused caddyhttp.HandlerError
		if called != want || errors.As(err, &refused) == want || (w.Header().Get("WWW-Authenticate") == "") != want {
			t.Errorf("%q: %v, %q", authorization, err, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestJWTCaddyfile(t *testing.T) {
	for _, tc := range []struct{ text, want, fails string }{
		{`rgate_jwt off`, `{"disabled":true}`, ""},
		{"rgate_jwt {\nalgorithms RS256 ES256\njwks_url https://id.example.com/keys\nissuer https://id.example.com\naudience api web\nleeway 0s\ntoken_from cookie:session header:Authorization\noptional\nhide_credentials\ncache_size -1\n}",
			`{"algorithms":["RS256","ES256"],"jwks_url":"https://id.example.com/keys","issuer":"https://id.example.com","audience":["api","web"],"leeway":0,"token_from":["cookie:session","header:Authorization"],"optional":true,"hide_credentials":true,"cache_size":-1}`, ""},
		{"rgate_jwt {\nalgorithms ES256\njwks <<JSON\n{\"keys\": [{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\",\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}\nJSON\n}", `{"algorithms":["ES256"],"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}}`, ""},
		{"rgate_jwt {\nalgorithms HS256\nsecret {env.JWT_SECRET}\n}", `{"algorithms":["HS256"],"secret":"{env.JWT_SECRET}"}`, ""},
		{"rgate_jwt {\nalgorithms RS256\npublic_key x\n}", "", "invalid public_key: invalid PEM: must contain a block such as -----BEGIN PUBLIC KEY-----, at Test:3"},
		{"rgate_jwt RS256", "", "unexpected argument"},
		{"rgate_jwt {\nalgorithms none\n}", "", "must be an algorithm that signs tokens, such as RS256, at Test:2"},
		{"rgate_jwt {\nalgorithms RS256\nsecret x\n}", "", "secret and algorithm RS256 cannot be combined: use HS256, HS384 or HS512, or replace secret with public keys, at Test:3"},
		{"rgate_jwt {\nalgorithms RS256\njwks_uri https://id.example.com\n}", "", `unrecognized subdirective 'jwks_uri' (did you mean "jwks_url"?)`},
	} {
		d := caddyfile.NewTestDispenser(tc.text)
		d.Next()
		p := new(JWT)
		err := options.Unmarshal(d, p)
		switch {
		case tc.fails != "":
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "Testfile", "Test"), tc.fails) {
				t.Errorf("%s: got %v, want %q", tc.text, err, tc.fails)
			}
		case err != nil:
			t.Errorf("%s: %v", tc.text, err)
		case jwtJSON(t, p) != tc.want:
			t.Errorf("%s: got %s", tc.text, jwtJSON(t, p))
		}
	}
}
