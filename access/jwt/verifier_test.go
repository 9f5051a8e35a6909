package jwt

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rgate/rgate/internal/testkit"
)

// jwtIssuer is a server with a JWK Set. It fails until the set is configured.
type jwtIssuer struct {
	*httptest.Server
	keys  atomic.Pointer[string]
	reads atomic.Int32
}

func newJWTIssuer(t *testing.T) *jwtIssuer {
	issuer := new(jwtIssuer)
	issuer.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuer.reads.Add(1)
		keys := issuer.keys.Load()
		if keys == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(*keys)) // fails if the gateway has disconnected
	}))
	t.Cleanup(issuer.Close)
	return issuer
}

func (i *jwtIssuer) serve(keys string) { i.keys.Store(&keys) }

func jwtStatus(t *testing.T, p *JWT, token string) (int, http.Header) {
	t.Helper()
	r, w := jwtRequest("/", "Authorization", "Bearer "+token)
	jwtServe(t, p, r, w)
	return w.Code, w.Header()
}

func TestJWTWithoutKeys(t *testing.T) {
	issuer := newJWTIssuer(t)
	p := jwtProvision(t, Options{Algorithms: []string{"ES256"}, JWKSURL: issuer.URL})
	good := jwtSign(t, jwt.SigningMethodES256, jwtEC(), "1", jwtClaims(nil))
	status, header := jwtStatus(t, p, good)
	if status != 503 || header.Get("Retry-After") != "1" || header.Get("WWW-Authenticate") != "" {
		t.Errorf("got %d, %v", status, header)
	}
	// Malformed tokens are rejected with 401 even without keys.
	if status, _ := jwtStatus(t, p, "x"); status != 401 {
		t.Errorf("garbage: got %d", status)
	}
	r, w := jwtRequest("/")
	if jwtServe(t, p, r, w); w.Code != 401 {
		t.Errorf("without a token: got %d", w.Code)
	}
	issuer.serve(jwtSet(t, jwtJWK(t, jwtEC().Public(), map[string]any{"kid": "1"})))
	testkit.Eventually(t, "the keys are there", func() bool {
		status, _ := jwtStatus(t, p, good)
		return status == 200
	})
	if status, _ := jwtStatus(t, p, jwtSign(t, jwt.SigningMethodES256, jwtEC(), "2", jwtClaims(nil))); status != 401 {
		t.Errorf("unknown key: got %d", status)
	}
	issuer.keys.Store(nil)
	if status, _ := jwtStatus(t, p, jwtSign(t, jwt.SigningMethodES256, jwtEC(), "1", jwtClaims(map[string]any{"sub": "bob"}))); status != 200 {
		t.Errorf("while the issuer is down: got %d", status)
	}
}

func TestJWTPoliciesShareKeys(t *testing.T) {
	issuer := newJWTIssuer(t)
	issuer.serve(jwtSet(t, jwtJWK(t, jwtEC().Public(), nil)))
	options := Options{Algorithms: []string{"ES256"}, JWKSURL: issuer.URL}
	good := jwtSign(t, jwt.SigningMethodES256, jwtEC(), "", jwtClaims(nil))
	first := jwtProvision(t, options)
	if status, _ := jwtStatus(t, first, good); status != 200 {
		t.Errorf("got %d", status)
	}
	t.Run("another", func(t *testing.T) {
		second := jwtProvision(t, options)
		if status, _ := jwtStatus(t, second, good); status != 200 || second.verifier.source != first.verifier.source {
			t.Errorf("got %d", status)
		}
	})
	if status, _ := jwtStatus(t, first, jwtSign(t, jwt.SigningMethodES256, jwtEC(), "", jwtClaims(map[string]any{"sub": "bob"}))); status != 200 {
		t.Errorf("after the other is gone: got %d", status)
	}
	if n := issuer.reads.Load(); n != 1 {
		t.Errorf("the keys were read %d times", n)
	}
}

func TestJWTFilesAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(key any) {
		if err := os.WriteFile(path, []byte(jwtSet(t, jwtJWK(t, key, nil))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(jwtEC().Public())
	p := jwtProvision(t, Options{Algorithms: []string{"ES256", "ES384"}, JWKSFile: path})
	before, after := jwtSign(t, jwt.SigningMethodES256, jwtEC(), "", jwtClaims(nil)), jwtSign(t, jwt.SigningMethodES384, jwtEC384(), "", jwtClaims(nil))
	for range 2 { // the second request uses the cache
		if status, _ := jwtStatus(t, p, before); status != 200 {
			t.Errorf("got %d", status)
		}
	}
	write(jwtEC384().Public())
	source := p.verifier.source
	source.mu.Lock()
	source.begun = time.Time{} // disables the minimum interval
	source.mu.Unlock()
	testkit.Eventually(t, "the new key is good", func() bool {
		status, _ := jwtStatus(t, p, after)
		return status == 200
	})
	if status, _ := jwtStatus(t, p, before); status != 401 {
		t.Errorf("a token of a key that is gone: got %d", status)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if status, _ := jwtStatus(t, p, after); status != 200 {
		t.Errorf("without the file: got %d", status)
	}
}
