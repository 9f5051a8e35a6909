package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// jwtJWK encodes a public key as a JWK (RFC 7518) without a library.
func jwtJWK(t testing.TB, public any, changes map[string]any) map[string]any {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	var key map[string]any
	switch public := public.(type) {
	case *rsa.PublicKey:
		key = map[string]any{"kty": "RSA", "n": encode(public.N.Bytes()), "e": encode(big.NewInt(int64(public.E)).Bytes())}
	case *ecdsa.PublicKey:
		point := jwtMade(public.Bytes())[1:]
		key = map[string]any{"kty": "EC", "crv": public.Curve.Params().Name, "x": encode(point[:len(point)/2]), "y": encode(point[len(point)/2:])}
	case ed25519.PublicKey:
		key = map[string]any{"kty": "OKP", "crv": "Ed25519", "x": encode(public)}
	}
	maps.Copy(key, changes)
	return key
}

func jwtSet(t testing.TB, keys ...map[string]any) string {
	t.Helper()
	return jwtJSON(t, map[string]any{"keys": keys})
}

func TestKeysOfASet(t *testing.T) {
	changed := func(changes map[string]any) map[string]any { return jwtJWK(t, jwtRSA().Public(), changes) }
	for name, tc := range map[string]struct {
		key map[string]any
		why string // reason why the key is ignored
	}{
		"RSA":                   {changed(map[string]any{"kid": "a", "use": "sig", "alg": "RS256", "key_ops": []string{"verify"}}), ""},
		"wrong certificate":     {changed(map[string]any{"x5c": []string{"MIIB"}, "x5t": "!"}), ""},
		"members of others":     {changed(map[string]any{"ext": true, "nbf": 1}), ""},
		"for encryption":        {changed(map[string]any{"use": "enc"}), "unsupported use"},
		"for wrapping":          {changed(map[string]any{"key_ops": []string{"wrapKey"}}), "unsupported key_ops"},
		"for OAEP":              {changed(map[string]any{"alg": "RSA-OAEP"}), "does not match its algorithm"},
		"for another kind":      {changed(map[string]any{"alg": "ES256"}), "does not match its algorithm"},
		"RSA called HMAC":       {changed(map[string]any{"alg": "HS256"}), "does not match its algorithm"},
		"private":               {changed(map[string]any{"d": "AQAB"}), "private key"},
		"secret":                {map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString([]byte(jwtSecret))}, "symmetric keys are not supported"},
		"unknown type":          {map[string]any{"kty": "AKP", "alg": "ML-DSA-44"}, "unsupported key type"},
		"unknown curve":         {map[string]any{"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ"}, "curve"},
		"point off the curve":   {jwtJWK(t, jwtEC().Public(), map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}), "invalid EC key"},
		"Ed448":                 {map[string]any{"kty": "OKP", "crv": "Ed448", "x": "AQ"}, "unsupported key type"},
		"no modulus":            {map[string]any{"kty": "RSA", "e": "AQAB"}, "invalid RSA key"},
		"short":                 {map[string]any{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 127)...))}, "1024 bits is too short"},
		"member of other types": {map[string]any{"kty": 1}, "cannot unmarshal"},
		"P-256":                 {jwtJWK(t, jwtEC().Public(), nil), ""},
		"P-384":                 {jwtJWK(t, jwtEC384().Public(), nil), ""},
		"P-521":                 {jwtJWK(t, jwtEC521().Public(), nil), ""},
		"Ed25519":               {jwtJWK(t, jwtEd().Public(), map[string]any{"alg": "EdDSA"}), ""},
	} {
		set, left, err := parseJWKS([]byte(jwtSet(t, tc.key, jwtJWK(t, jwtEC().Public(), nil))))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tc.why == "" && (len(set.keys) != 2 || len(left) != 0) {
			t.Errorf("%s: left out: %v", name, left)
		}
		if tc.why != "" && (len(set.keys) != 1 || len(left) != 1 || !strings.Contains(left[0].Error(), tc.why)) {
			t.Errorf("%s: %d keys, left out: %v, want %q", name, len(set.keys), left, tc.why)
		}
		if _, _, err := parseJWKS([]byte(jwtSet(t, tc.key))); (err != nil) != (tc.why != "") {
			t.Errorf("%s alone: %v", name, err)
		}
	}
	unusable := map[string]any{"kty": "AKP", "alg": "ML-DSA-44"}
	if _, _, err := parseJWKS([]byte(jwtSet(t, unusable, unusable))); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "; key 2: ") {
		t.Errorf("two unusable keys: %v", err)
	}
	many := make([]map[string]any, maxJWKs+5)
	for i := range many {
		many[i] = jwtJWK(t, jwtEC().Public(), map[string]any{"kid": fmt.Sprint(i)})
	}
	if set, left, err := parseJWKS([]byte(jwtSet(t, many...))); err != nil || len(set.keys) != maxJWKs || len(left) != 1 {
		t.Errorf("of many keys, %d are taken: %v, %v", len(set.keys), left, err)
	}
}

func TestKeysAreChosen(t *testing.T) {
	set, _, err := parseJWKS([]byte(jwtSet(t,
		jwtJWK(t, jwtRSA().Public(), map[string]any{"kid": "rsa"}),
		jwtJWK(t, jwtOtherRSA().Public(), map[string]any{"kid": "only PS", "alg": "PS256"}),
		jwtJWK(t, jwtEC().Public(), map[string]any{"kid": "rsa"}), // duplicate key ID, which is allowed
		jwtJWK(t, jwtEd().Public(), nil),
	)))
	if err != nil {
		t.Fatal(err)
	}
	rules := &tokenRules{algorithms: signingAlgorithms}
	for _, tc := range []struct {
		method jwt.SigningMethod
		key    any
		kid    string
		good   bool
	}{
		{jwt.SigningMethodRS256, jwtRSA(), "rsa", true},
		{jwt.SigningMethodRS512, jwtRSA(), "rsa", true},
		{jwt.SigningMethodES256, jwtEC(), "rsa", true},
		{jwt.SigningMethodPS256, jwtOtherRSA(), "only PS", true},
		{jwt.SigningMethodPS256, jwtOtherRSA(), "", true},
		{jwt.SigningMethodRS256, jwtRSA(), "", true},
		{jwt.SigningMethodEdDSA, jwtEd(), "", true},
		{jwt.SigningMethodEdDSA, jwtEd(), "any", true},
		{jwt.SigningMethodRS256, jwtOtherRSA(), "only PS", false},
		{jwt.SigningMethodPS512, jwtOtherRSA(), "only PS", false},
		{jwt.SigningMethodRS256, jwtOtherRSA(), "rsa", false},
		{jwt.SigningMethodRS256, jwtRSA(), "new", false},
		{jwt.SigningMethodES384, jwtEC384(), "", false},
		{jwt.SigningMethodHS256, []byte(jwtSecret), "rsa", false},
	} {
		token, err := rules.parse(jwtSign(t, tc.method, tc.key, tc.kid, jwtClaims(nil)))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := set.verify(token)
		if (err == nil) != tc.good || (payload != nil) != tc.good {
			t.Errorf("%s by %q: %v", tc.method.Alg(), tc.kid, err)
		}
	}
}

func TestKeysInPEM(t *testing.T) {
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0)}
	certificate := block("CERTIFICATE", jwtMade(x509.CreateCertificate(rand.Reader, template, template, jwtEC().Public(), jwtEC())))
	pkix := jwtPEM(t, jwtRSA().Public())
	weak := jwtPEM(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537})
	p224 := jwtMade(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for _, tc := range []struct {
		name, text string
		keys       int
		fails      string
	}{
		{"PKIX", pkix, 1, ""},
		{"PKCS1", block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&jwtRSA().PublicKey)), 1, ""},
		{"certificate", certificate, 1, ""},
		{"several, with text around them", "# old\n" + pkix + "\n# new\n" + certificate + jwtPEM(t, jwtEd().Public()), 3, ""},
		{"nothing", "", 0, "invalid PEM: must contain"},
		{"one line", strings.ReplaceAll(pkix, "\n", ""), 0, "invalid PEM block"},
		{"cut off", pkix + certificate[:100], 0, "invalid PEM block"},
		{"wrong bytes", block("PUBLIC KEY", []byte("x")), 0, "invalid public key"},
		{"private", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(jwtRSA())), 0, "openssl pkey -pubout"},
		{"request", block("CERTIFICATE REQUEST", nil), 0, `unknown PEM block type "CERTIFICATE REQUEST"`},
		{"weak", weak, 0, "1024 bits is too short"},
		{"curve", jwtPEM(t, p224.Public()), 0, "use P-256"},
		{"key exchange", jwtPEM(t, jwtMade(jwtEC().ECDH()).PublicKey()), 1, ""},
		{"too many", strings.Repeat(certificate, maxJWKs+1), 0, "too many keys: must be at most 100"},
	} {
		set, _, err := parsePEM([]byte(tc.text))
		switch {
		case tc.fails == "" && (err != nil || len(set.keys) != tc.keys):
			t.Errorf("%s: %v, %v", tc.name, set, err)
		case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.fails)
		}
	}
}

func TestPublicKeysAreNeverSecrets(t *testing.T) {
	for _, public := range []any{jwtRSA().Public(), jwtEC().Public(), jwtEd().Public()} {
		set, _, err := parsePEM([]byte(jwtPEM(t, public)))
		if err != nil || set.suitsAny([]jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}) {
			t.Errorf("%T: %v", public, err)
		}
	}
	if secretKeys(jwtSecret).suitsAny(signingAlgorithms[3:]) {
		t.Error("a secret is taken for a public key")
	}
}
