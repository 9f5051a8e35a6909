package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rgate/rgate/internal/testkit"
)

const testSecret = "0123456789012345678901234567890123456789"

// bearer returns an Authorization header with an HS256 token signed by testSecret.
// changes overrides claims.
func bearer(t *testing.T, changes map[string]any) []string {
	return []string{"Authorization", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(testSecret), "", claimsOf(changes))}
}

// logged returns the log lines that contain text.
func (g *gateway) logged(text string) (lines []string) {
	for line := range strings.Lines(g.output.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// A role may contain spaces: "Read Only Admin" is not the role Admin.
func TestD2TheTextOfARoleIsOneRole(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	options := `algorithms: [HS256], secret: "` + testSecret + `"`
	g := startGateway(t, `
jwt: {`+options+`}
routes:
  - {path_prefix: /text, backend: b, require: {roles: [Admin]}}
  - {path_prefix: /whole, backend: b, require: {roles: [Read Only Admin]}}
  - {path_prefix: /split, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles: {split: " "}}}
  - {path_prefix: /comma, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles: {claim: realm.groups, split: ","}}}
  - {path_prefix: /one, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles_claim: group, roles: {split: ""}}}
  - {path_prefix: /scope, backend: b, require: {scopes: [pay]}}
  - path_prefix: /provider
    backend: b
    jwt: false
    require: {roles: [Admin]}
    handle: [{handler: authentication, providers: {rgate_jwt: {`+options+`}}}]
  - path_prefix: /claim
    backend: b
    transform: {response: {headers: {set: {X-Roles: "{http.auth.user.roles}"}}}}
backends: [{name: b, dial: ["`+echo+`"]}]`)
	for _, tc := range []struct {
		path   string
		claims map[string]any
		want   int
	}{
		{"/text", map[string]any{"roles": "Read Only Admin"}, 403},
		{"/text", map[string]any{"roles": []string{"Read Only Admin"}}, 403},
		{"/text", map[string]any{"roles": "Admin"}, 200},
		{"/text", map[string]any{"roles": []string{"x", "Admin"}}, 200},
		{"/whole", map[string]any{"roles": "Read Only Admin"}, 200},
		{"/split", map[string]any{"roles": "Reader Admin"}, 200},
		{"/comma", map[string]any{"realm": map[string]any{"groups": "Reader , Admin"}}, 200},
		{"/comma", map[string]any{"realm": map[string]any{"groups": "Read Only Admin"}}, 403},
		{"/one", map[string]any{"group": "Read Only Admin"}, 403},
		{"/one", map[string]any{"group": "Admin"}, 200},
		{"/scope", map[string]any{"scope": "read pay"}, 200},
		{"/scope", map[string]any{"scope": nil, "scp": "read pay"}, 200},
		{"/provider", map[string]any{"roles": "Read Only Admin"}, 403},
		{"/provider", map[string]any{"roles": "Admin"}, 200},
	} {
		if got := g.ask(t, "GET", tc.path, "", bearer(t, tc.claims)...); got.status != tc.want {
			t.Errorf("%s with %v: status %d, want %d", tc.path, tc.claims, got.status, tc.want)
		}
	}
	got := g.ask(t, "GET", "/claim", "", bearer(t, map[string]any{"roles": []string{"Read Only Admin", "Reader"}})...)
	if roles := got.header.Get("X-Roles"); roles != "Reader" {
		t.Errorf("the placeholder of roles is %q: with the others it would be read as Admin", roles)
	}
	const warning = "no longer split at spaces"
	if lines := g.logged(warning); len(lines) != 1 || !strings.Contains(lines[0], `"/text"`) || !strings.Contains(lines[0], `"/provider"`) ||
		strings.Contains(lines[0], `"/split"`) || strings.Contains(lines[0], `"/one"`) {
		t.Errorf("the warnings at the start are %q", lines)
	}

	site := launch(t, "Caddyfile", fmt.Sprintf("{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\trgate_jwt {\n\t\talgorithms HS256\n\t\tsecret %s\n\t}\n\trgate_require {\n\t\troles Admin\n\t}\n\trespond ok\n}\n", testSecret),
		nil, "run", "--config", "$FILE")
	if got := site.ask(t, "GET", "/", "", bearer(t, map[string]any{"roles": "Read Only Admin"})...); got.status != 403 {
		t.Errorf("in a site: status %d, want 403", got.status)
	}
	if lines := site.logged(warning); len(lines) != 1 {
		t.Errorf("the warnings of a site are %q", lines)
	}
}

// keyServer serves a JWK Set and counts the requests for it.
type keyServer struct {
	*httptest.Server
	set   atomic.Pointer[string]
	reads atomic.Int64
}

func startKeyServer(t *testing.T, start func(http.Handler) *httptest.Server) *keyServer {
	k := new(keyServer)
	k.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/openid-configuration" {
			fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, k.URL, k.URL+"/keys")
			return
		}
		k.reads.Add(1)
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = io.WriteString(w, *k.set.Load())
	}))
	t.Cleanup(k.Close)
	return k
}

func (k *keyServer) serve(kid, algorithm string, key ed25519.PrivateKey) {
	set := fmt.Sprintf(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": %q, "alg": %q, "x": %q}]}`, kid, algorithm,
		base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
	k.set.Store(&set)
}

func edKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, "making a key", err)
	return key
}

// edToken returns an Authorization header with an Ed25519 token. algorithm is EdDSA or
// Ed25519 (RFC 9864).
func edToken(t *testing.T, algorithm, kid string, key ed25519.PrivateKey, issuer string) []string {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claimsOf(map[string]any{"iss": issuer}))
	token.Header["alg"], token.Header["kid"] = algorithm, kid
	text, err := token.SignedString(key)
	must(t, "signing a token", err)
	return []string{"Authorization", "Bearer " + text}
}

// An issuer may replace the key of a kid. Keys are refreshed when a signature does not
// verify.
func TestD9TheKeyOfAKidIsReplaced(t *testing.T) {
	t.Parallel()
	first, second := edKey(t), edKey(t)
	keys := startKeyServer(t, httptest.NewServer)
	keys.serve("same", "EdDSA", first)
	g := startGateway(t, `
routes: [{path_prefix: /, backend: b, jwt: {algorithms: [EdDSA], jwks_url: "`+keys.URL+`/keys"}}]
backends: [{name: b, dial: ["`+startEcho(t)+`"]}]`)
	status := func(key ed25519.PrivateKey) int {
		return g.ask(t, "GET", "/", "", edToken(t, "EdDSA", "same", key, "x")...).status
	}
	if got := status(first); got != 200 {
		t.Fatalf("a token of the first key: status %d", got)
	}
	keys.serve("same", "EdDSA", second)
	began := time.Now()
	testkit.Eventually(t, "a token of the second key is good", func() bool { return status(second) == 200 })
	if got := status(first); got != 401 {
		t.Errorf("a token of the first key afterwards: status %d, want 401", got)
	}
	// Invalid signatures refresh the keys at most once in five seconds.
	wrong := edKey(t)
	for range 500 {
		if got := status(wrong); got != 401 {
			t.Fatalf("a wrong signature: status %d", got)
		}
	}
	if most := 2 + int64(time.Since(began)/(5*time.Second)); keys.reads.Load() > most {
		t.Errorf("the keys were read %d times, want at most %d", keys.reads.Load(), most)
	}
}

// Tokens may use the algorithm name of RFC 9864, Ed25519. The key server's certificate
// may be signed by a private CA.
func TestD10Ed25519AndAPrivateAuthority(t *testing.T) {
	t.Parallel()
	key := edKey(t)
	plain, private := startKeyServer(t, httptest.NewServer), startKeyServer(t, httptest.NewTLSServer)
	plain.Config.ErrorLog, private.Config.ErrorLog = log.New(io.Discard, "", 0), log.New(io.Discard, "", 0)
	plain.serve("k", "EdDSA", key)
	private.serve("k", "Ed25519", key)
	authority := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private.Certificate().Raw})))
	g := startGateway(t, `
routes:
  - {path_prefix: /eddsa, backend: b, jwt: {algorithms: [EdDSA], jwks_url: "`+plain.URL+`/keys"}}
  - {path_prefix: /ed25519, backend: b, jwt: {algorithms: [Ed25519], jwks_url: "`+plain.URL+`/keys"}}
  - {path_prefix: /private, backend: b, jwt: {algorithms: [EdDSA], jwks_url: "`+private.URL+`/keys", ca_file: "`+authority+`"}}
  - {path_prefix: /discovered, backend: b, jwt: {algorithms: [Ed25519], issuer: "`+private.URL+`", discovery: true, ca_file: "`+authority+`"}}
  - {path_prefix: /unknown, backend: b, jwt: {algorithms: [EdDSA], jwks_url: "`+private.URL+`/keys"}}
  - {path_prefix: /other, backend: b, jwt: {algorithms: [ES256], jwks: {keys: [{kty: EC, crv: P-256, x: f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU, y: x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0}]}}}
backends: [{name: b, dial: ["`+startEcho(t)+`"]}]`)
	for path, want := range map[string]int{"/eddsa": 200, "/ed25519": 200, "/private": 200, "/discovered": 200, "/unknown": 503, "/other": 401} {
		for _, algorithm := range []string{"EdDSA", "Ed25519"} {
			if got := g.ask(t, "GET", path, "", edToken(t, algorithm, "k", key, private.URL)...); got.status != want {
				t.Errorf("%s with %s: status %d, want %d", path, algorithm, got.status, want)
			}
		}
	}
	for options, want := range map[string]string{
		`jwks: {keys: [{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}, ca_file: x`: "ca_file requires jwks_url or discovery",
		`jwks_url: "https://127.0.0.1:1/keys", ca_file: "` + authority + `.none"`:                              "ca_file: open ",
	} {
		file := writeFile(t, "rgate.yaml", "routes: [{path_prefix: /, backend: b, jwt: {algorithms: [EdDSA], "+options+"}}]\nbackends: [{name: b, dial: [\"127.0.0.1:1\"]}]\n")
		if done := rgate(t, nil, "validate", "-c", file, "--adapter", "rgate"); done.code == 0 || !strings.Contains(done.stderr, want) {
			t.Errorf("%s: exit code %d, %s, want %q", options, done.code, done.stderr, want)
		}
	}
}
