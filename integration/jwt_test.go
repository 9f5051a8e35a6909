package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rgate/rgate/internal/testkit"
)

// issuer is an OpenID Connect issuer that serves its JWK Set.
type issuer struct {
	*httptest.Server
	mu   sync.Mutex
	keys []map[string]string // Guarded by mu.
	down bool                // Guarded by mu.
}

func startIssuer(t *testing.T) *issuer {
	i := new(issuer)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		switch {
		case i.down:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}) // fails if the gateway has disconnected
		default:
			w.Header().Set("Cache-Control", "max-age=3600")
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": i.keys}) // fails if the gateway has disconnected
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// serve adds a key to the JWK Set.
func (i *issuer) serve(t *testing.T, kid string, key *ecdsa.PrivateKey) {
	point, err := key.PublicKey.Bytes()
	must(t, "writing a key", err)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, map[string]string{
		"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	})
}

func (i *issuer) setDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "making a key", err)
	return key
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, "making a key", err)
	return key
}

// claimsOf returns the claims of a valid token with changes applied. A nil value removes
// a claim.
func claimsOf(changes map[string]any) jwt.MapClaims {
	claims := jwt.MapClaims{"iss": "https://id.example.com", "aud": "api", "sub": "alice", "scope": "read", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// signed returns a token signed by the golang-jwt library.
func signed(t *testing.T, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	must(t, "signing a token", err)
	return text
}

// byHand returns a token with the given raw header, signed with HMAC-SHA256. If key is
// nil, the signature is empty.
func byHand(t *testing.T, header string, claims jwt.MapClaims, key []byte) string {
	payload, err := json.Marshal(claims)
	must(t, "writing claims", err)
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	if key == nil {
		return text + "."
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// startEcho starts a backend that responds with the request's target and identity
// headers.
func startEcho(t *testing.T) (address string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s user=%q auth=%t cookie=%q", r.RequestURI, r.Header.Values("X-User-ID"), r.Header.Get("Authorization") != "", r.Header.Get("Cookie"))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestJWTStatuses checks the status and challenge for valid and invalid tokens.
func TestJWTStatuses(t *testing.T) {
	t.Parallel()
	id, key, other, first, second := startIssuer(t), rsaKey(t), rsaKey(t), ecKey(t), ecKey(t)
	id.serve(t, "first", first)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, "writing a key", err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	config := strings.NewReplacer("$KEY", writeFile(t, "key.pem", string(public)), "$ID", id.URL, "$ECHO", startEcho(t)).Replace(`
routes:
  - path_prefix: /pem
    backend: web
    jwt: {algorithms: [RS256], public_key_file: "$KEY", issuer: "https://id.example.com", audience: [web, api]}
  - path_prefix: /scoped
    backend: web
    jwt: {algorithms: [RS256], public_key_file: "$KEY"}
    require: {scopes: [pay]}
  - path_prefix: /jwks
    backend: web
    jwt: {algorithms: [ES256], jwks_url: "$ID/keys"}
  - path_prefix: /discovery
    backend: web
    jwt: {algorithms: [ES256], discovery: true, issuer: "$ID"}
backends:
  - name: web
    dial: ["$ECHO"]
`)
	g := startGateway(t, config)
	rs := func(changes map[string]any) string {
		return signed(t, jwt.SigningMethodRS256, key, "", claimsOf(changes))
	}
	es := func(kid string, key *ecdsa.PrivateKey) string {
		return signed(t, jwt.SigningMethodES256, key, kid, claimsOf(map[string]any{"iss": id.URL}))
	}
	now := time.Now()
	parts := strings.Split(rs(nil), ".")
	const invalid = `error="invalid_token"`
	for _, tc := range []struct {
		name      string
		before    func()
		path      string
		token     string
		status    int
		challenge string
		soon      bool // wait until the expected response is returned
	}{
		{name: "none", path: "/pem", status: 401},
		{name: "garbage", path: "/pem", token: "garbage", status: 401, challenge: invalid},
		{name: "two words", path: "/pem", token: "a b", status: 400, challenge: `error="invalid_request"`},
		{name: "expired", path: "/pem", token: rs(map[string]any{"exp": now.Add(-time.Hour).Unix()}), status: 401, challenge: invalid},
		{name: "no expiry", path: "/pem", token: rs(map[string]any{"exp": nil}), status: 401, challenge: invalid},
		{name: "not valid yet", path: "/pem", token: rs(map[string]any{"nbf": now.Add(time.Hour).Unix()}), status: 401, challenge: invalid},
		{name: "wrong signature", path: "/pem", token: signed(t, jwt.SigningMethodRS256, other, "", claimsOf(nil)), status: 401, challenge: invalid},
		{name: "claims of another token", path: "/pem", token: parts[0] + "." + strings.Split(rs(map[string]any{"sub": "root"}), ".")[1] + "." + parts[2], status: 401, challenge: invalid},
		{name: "alg none", path: "/pem", token: byHand(t, `{"alg":"none","typ":"JWT"}`, claimsOf(nil), nil), status: 401, challenge: invalid},
		{name: "alg none by a library", path: "/pem", token: signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", claimsOf(nil)), status: 401, challenge: invalid},
		{name: "HS256 signed with the RSA public key", path: "/pem", token: byHand(t, `{"alg":"HS256","typ":"JWT"}`, claimsOf(nil), public), status: 401, challenge: invalid},
		{name: "HS256 signed with its bytes", path: "/pem", token: byHand(t, `{"alg":"HS256","typ":"JWT"}`, claimsOf(nil), der), status: 401, challenge: invalid},
		{name: "wrong issuer", path: "/pem", token: rs(map[string]any{"iss": "https://id.example.org"}), status: 401, challenge: invalid},
		{name: "wrong audience", path: "/pem", token: rs(map[string]any{"aud": "app"}), status: 401, challenge: invalid},
		{name: "valid", path: "/pem", token: rs(nil), status: 200},
		{name: "missing scope", path: "/scoped", token: rs(nil), status: 403, challenge: `error="insufficient_scope", scope="pay"`},
		{name: "right scope", path: "/scoped", token: rs(map[string]any{"scope": "read pay"}), status: 200},

		{name: "valid, keys of an address", path: "/jwks", token: es("first", first), status: 200},
		{name: "valid, keys of an issuer", path: "/discovery", token: es("first", first), status: 200},
		{name: "key that is not served yet", path: "/jwks", token: es("second", second), status: 401, challenge: invalid},
		{name: "rotated", before: func() { id.serve(t, "second", second) }, path: "/jwks", token: es("second", second), status: 200, soon: true},
		{name: "rotated, keys of an issuer", path: "/discovery", token: es("second", second), status: 200, soon: true},
		{name: "old key besides", path: "/jwks", token: es("first", first), status: 200},

		{name: "JWKS down", before: func() { id.setDown(true) }, path: "/jwks", token: es("second", second), status: 200},
		{name: "JWKS down, not in the cache", path: "/jwks", token: es("first", first), status: 200},
		{name: "JWKS down, unknown key", path: "/jwks", token: es("third", second), status: 401, challenge: invalid},
		{name: "JWKS down, after a reload", before: func() {
			g.write(t, config+"\nadmin: localhost:$ADMIN\ndefault_response: {body: reloaded}\n")
			g.reload(t)
			testkit.Eventually(t, "the new configuration is loaded", func() bool { return g.get(t, "/").body == "reloaded" })
		}, path: "/jwks", token: es("first", first), status: 200},
		{name: "restart with JWKS down", before: func() { g = startGateway(t, config) }, path: "/jwks", token: es("first", first), status: 503},
		{name: "restart with JWKS down, no token", path: "/jwks", status: 401},
		{name: "restart with JWKS down, keys of an issuer", path: "/discovery", token: es("first", first), status: 503},
		{name: "JWKS up again", before: func() { id.setDown(false) }, path: "/jwks", token: es("first", first), status: 200, soon: true},
		{name: "JWKS up again, keys of an issuer", path: "/discovery", token: es("first", first), status: 200, soon: true},
		{name: "JWKS up again, expired", path: "/jwks", token: signed(t, jwt.SigningMethodES256, first, "first", claimsOf(map[string]any{"exp": 1})), status: 401, challenge: invalid},
	} {
		if tc.before != nil {
			tc.before()
		}
		headers := []string{"X-User-ID", "root"}
		if tc.token != "" {
			headers = append(headers, "Authorization", "Bearer "+tc.token)
		}
		got := g.ask(t, "GET", tc.path, "", headers...)
		if tc.soon {
			testkit.Eventually(t, tc.name+" passes", func() bool {
				got = g.ask(t, "GET", tc.path, "", headers...)
				return got.status == tc.status
			})
		}
		wantChallenge := ""
		if tc.status < 500 && tc.status != 200 {
			wantChallenge = `Bearer realm="rgate"`
		}
		if tc.challenge != "" {
			wantChallenge += ", " + tc.challenge
		}
		if challenge := got.header.Get("WWW-Authenticate"); got.status != tc.status || challenge != wantChallenge || (got.header.Get("Retry-After") != "") != (tc.status == 503) {
			t.Errorf("%s: got %d %q, want %d %q", tc.name, got.status, challenge, tc.status, wantChallenge)
		}
		wantBody := http.StatusText(tc.status) + "\n" // the body must not contain the reason
		if tc.status == 200 {
			wantBody = tc.path + ` user=["alice"] auth=true cookie=""`
		}
		if got.body != wantBody {
			t.Errorf("%s: the body is %q, want %q", tc.name, got.body, wantBody)
		}
	}
	if n := g.metric(t, "rgate_refused_requests_total", "policy", "jwt", "route", "/jwks", "code", "401"); n != 2 {
		t.Errorf("%v requests are counted as refused with 401", n)
	}
	testkit.Eventually(t, "the reason is in the log", func() bool { return strings.Contains(g.output.String(), "the token has expired") })
	for _, secret := range []string{parts[2], "BEGIN PUBLIC KEY"} {
		if strings.Contains(g.output.String(), secret) {
			t.Errorf("the log has %q in it", secret)
		}
	}
}

// TestJWTPlaces checks tokens in every supported location. The backend must not receive
// them.
func TestJWTPlaces(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef0123456789abcdef"
	g := launch(t, "rgate.yaml", strings.ReplaceAll(`admin: localhost:$ADMIN
jwt:
  algorithms: [HS256]
  secret: "{env.JWT_SECRET}"
  token_from: ["header:Authorization", "header:X-Token", "cookie:session", "query:access_token"]
  hide_credentials: true
  optional: true
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /open, backend: web, jwt: false}
backends:
  - {name: web, dial: ["$ECHO"]}
`, "$ECHO", startEcho(t)), []string{"JWT_SECRET=" + secret}, "-c", "$FILE", "-p", "$PORT")
	token := signed(t, jwt.SigningMethodHS256, []byte(secret), "", claimsOf(nil))
	for _, tc := range []struct {
		target, want string
		headers      []string
	}{
		{"/a%2Fb?c=%20", `200 /a%2Fb?c=%20 user=["alice"] auth=false cookie=""`, []string{"Authorization", "Bearer " + token}},
		{"/", `200 / user=["alice"] auth=false cookie=""`, []string{"X-Token", token}},
		{"/", `200 / user=["alice"] auth=false cookie="a=b; c=d"`, []string{"Cookie", "a=b; session=" + token + "; c=d"}},
		{"/a%2Fb?c=%20&access_token=" + token + "&d", `200 /a%2Fb?c=%20&d user=["alice"] auth=false cookie=""`, nil},
		{"/?access_token=" + token, `200 / user=["alice"] auth=false cookie=""`, nil},
		{"/?access_token=" + token, `200 / user=["alice"] auth=false cookie=""`, []string{"X-Token", token}},
		{"/?access_token=" + token, "400 Bad Request\n", []string{"X-Token", token + "x"}},
		{"/", `200 / user=[] auth=true cookie=""`, []string{"Authorization", "Basic YTpi", "X-User-ID", "root"}},
		{"/", `200 / user=[] auth=false cookie=""`, nil},
		{"/", "401 Unauthorized\n", []string{"X-Token", token + "x"}},
		{"/open", `200 /open user=[] auth=true cookie=""`, []string{"Authorization", "Bearer x"}},
	} {
		got := g.ask(t, "GET", tc.target, "", tc.headers...)
		if text := fmt.Sprintf("%d %s", got.status, got.body); text != tc.want {
			t.Errorf("%.40s: got %q, want %q", tc.target, text, tc.want)
		}
	}
}

// TestJWTAlone checks the policy in sites without a gateway, and as an authentication
// provider.
func TestJWTAlone(t *testing.T) {
	t.Parallel()
	key := ecKey(t)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, "writing a key", err)
	public := writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	handlers := `[
		{"handle": [{"handler": "static_response", "body": "{http.auth.user.id} {http.auth.user.scopes} {http.request.header.X-User-ID}"}]}
	]}}}}}`
	for name, g := range map[string]*gateway{
		"Caddyfile": launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\trgate_jwt {\n\t\talgorithms ES256\n\t\tpublic_key_file "+public+
			"\n\t}\n\trespond \"{http.auth.user.id} {http.auth.user.scopes} {header.X-User-ID}\"\n}\n", nil, "run", "--config", "$FILE"),
		"provider": launch(t, "caddy.json", `{"admin": {"listen": "localhost:$ADMIN"}, "apps": {"http": {"servers": {"a": {"listen": [":$PORT"], "routes": [
		{"handle": [{"handler": "authentication", "providers": {"rgate_jwt": {"algorithms": ["ES256"], "public_key_file": "`+filepath.ToSlash(public)+`"}}}]},
		`+strings.TrimPrefix(handlers, "[\n\t\t"), nil, "run", "--config", "$FILE"),
	} {
		for authorization, want := range map[string]string{
			"Bearer " + signed(t, jwt.SigningMethodES256, key, "", claimsOf(nil)): "200 alice read alice", "Bearer x": "401 ", "": "401 ",
		} {
			got := g.ask(t, "GET", "/", "", "Authorization", authorization, "X-User-ID", "root")
			if text := fmt.Sprintf("%d %s", got.status, got.body); !strings.HasPrefix(text, want) || (got.header.Get("WWW-Authenticate") == "") != (got.status == 200) {
				t.Errorf("%s: got %q", name, text)
			}
		}
	}
}
