package jwt

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/golang-jwt/jwt/v5"
)

// BenchmarkJWT verifies the same token repeatedly, with and without the cache.
func BenchmarkJWT(b *testing.B) {
	for _, algorithm := range []struct {
		method jwt.SigningMethod
		key    any
		public any
	}{
		{jwt.SigningMethodHS256, []byte(jwtSecret), nil},
		{jwt.SigningMethodRS256, jwtRSA(), jwtRSA().Public()},
		{jwt.SigningMethodES256, jwtEC(), jwtEC().Public()},
		{jwt.SigningMethodEdDSA, jwtEd(), jwtEd().Public()},
	} {
		name := algorithm.method.Alg()
		options := Options{Algorithms: []string{name}, Secret: jwtSecret, Issuer: "https://id.example.com", Audience: []string{"api"}}
		if algorithm.public != nil {
			options.Secret, options.PublicKey = "", jwtPEM(b, algorithm.public)
		}
		token := jwtSign(b, algorithm.method, algorithm.key, "", jwtClaims(nil))
		for cache, size := range map[string]int{"cached": 0, "uncached": -1} {
			options.CacheSize = size
			v := jwtProvision(b, options).verifier
			b.Run(name+"/"+cache, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.check(b.Context(), token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkJWTRequest measures a request with a cached token, and the same request
// without the policy.
func BenchmarkJWTRequest(b *testing.B) {
	p := jwtProvision(b, Options{Algorithms: []string{"HS256"}, Secret: jwtSecret})
	token := jwtSign(b, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(nil))
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request) error{
		"with":    func(w http.ResponseWriter, r *http.Request) error { return p.ServeHTTP(w, r, next) },
		"without": next.ServeHTTP,
	} {
		b.Run(name, func(b *testing.B) {
			plain, w := jwtRequest("/", "Authorization", "Bearer "+token)
			server := new(caddyhttp.Server)
			b.ReportAllocs()
			for b.Loop() {
				r := caddyhttp.PrepareRequest(plain, caddy.NewEmptyReplacer(), w, server)
				if err := handler(w, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkJWTRefusal measures the rejection of a token signed with another key. Rejected
// tokens are not cached.
func BenchmarkJWTRefusal(b *testing.B) {
	v := jwtProvision(b, Options{Algorithms: []string{"RS256"}, PublicKey: jwtPEM(b, jwtRSA().Public())}).verifier
	for name, token := range map[string]string{
		"signature": jwtSign(b, jwt.SigningMethodRS256, jwtOtherRSA(), "", jwtClaims(nil)),
		"algorithm": jwtSign(b, jwt.SigningMethodHS256, []byte(jwtSecret), "", jwtClaims(nil)),
		"garbage":   "garbage",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.check(b.Context(), token); err == nil {
					b.Fatal("it is taken for good")
				}
			}
		})
	}
}

// BenchmarkTokenCache measures lookups in a full cache of many tokens.
func BenchmarkTokenCache(b *testing.B) {
	keys := new(keySet)
	for name, size := range map[string]int{"100": 100, "10000": 10_000, "1000000": 1_000_000} {
		b.Run(name, func(b *testing.B) {
			cache, tokens := newTokenCache(size), make([]*verified, size)
			now := time.Now().UnixMilli()
			for i := range tokens {
				tokens[i] = jwtCached(i, keys, now+1000)
				cache.put(tokens[i], now)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				cache.get(&tokens[i].token, keys)
				if i++; i == size {
					i = 0
				}
			}
		})
	}
}
