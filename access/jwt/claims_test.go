package jwt

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/rgate/rgate/access/identity"
)

func TestTokensAreParsed(t *testing.T) {
	rules := &tokenRules{algorithms: []jose.SignatureAlgorithm{jose.HS256}}
	for header, fails := range map[string]string{
		`{"alg":"HS256"}`:                                   "",
		`{"alg":"HS256","typ":"at+jwt","cty":"x"}`:          "",
		`{"alg":"HS512"}`:                                   `algorithm "HS512" of the token is not allowed`,
		`{"alg":"none"}`:                                    `algorithm "none" of the token is not allowed`,
		`{}`:                                                "of the token is not allowed",
		`{"alg":["HS256"]}`:                                 "of the token is not allowed",
		`{"ALG":"HS256"}`:                                   "of the token is not allowed",
		`{"alg":"none","alg":"HS256"}`:                      "not a JSON Web Token",
		`{"alg":"HS256","kid":7}`:                           "not a JSON Web Token",
		`{"alg":"HS256","crit":["exp"],"exp":1}`:            `"crit"`,
		`{"alg":"HS256","crit":["b64"],"b64":false}`:        `"crit"`,
		`{"alg":"HS256","b64":false}`:                       `"b64"`,
		`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`:    "not a JSON Web Token",
		`{"alg":"HS256\r\nX: 1","kid":"` + "\\u0000" + `"}`: `algorithm "HS256\r\nX: 1" of the token is not allowed`,
		`[]`:   "not a JSON Web Token",
		`null`: "of the token is not allowed",
	} {
		token, err := rules.parse(jwtByHand(header, `{}`, []byte(jwtSecret)))
		if (token == nil) != (err != nil) || (err == nil) != (fails == "") || err != nil && !strings.Contains(err.Error(), fails) {
			t.Errorf("%s: got %v, want %q", header, err, fails)
		}
	}
}

func TestClaimsAreJudged(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rules := &tokenRules{leeway: 10 * time.Second, issuer: "me", audience: []string{"a", "b"}, userClaim: "sub", rolesClaim: "roles"}
	for _, tc := range []struct{ payload, fails string }{
		{`{"iss":"me","aud":"a","exp":1800000001}`, ""},
		{`{"iss":"me","aud":["x",7,"b"],"exp":1799999990.001}`, ""},
		{`{"iss":"me","aud":"a","exp":1799999990}`, "the token has expired"},
		{`{"iss":"me","aud":"a","exp":1800000001,"nbf":1800000010,"iat":1800000010}`, ""},
		{`{"iss":"me","aud":"a","exp":1800000001,"nbf":1800000010.001}`, "not valid yet"},
		{`{"iss":"me","aud":"a","exp":1800000001,"iat":1800000011}`, "not valid yet"},
		{`{"iss":"me","aud":"a","exp":1800000001,"nbf":null}`, ""},
		{`{"iss":"me","aud":"a","exp":null}`, `claim "exp" is missing or not a number`},
		{`{"iss":"me","aud":"a"}`, `claim "exp" is missing`},
		{`{"iss":"me","aud":"a","exp":"1800000001"}`, `claim "exp" is missing or not a number`},
		{`{"iss":"me","aud":"a","exp":true}`, `claim "exp" is missing or not a number`},
		{`{"iss":"me","aud":"a","exp":1e400}`, "out of range"},
		{`{"iss":"me","aud":"a","exp":9e18}`, "out of range"},
		{`{"iss":"me","aud":"a","exp":-9e18}`, "out of range"},
		{`{"iss":"me","aud":"a","exp":1800000001,"nbf":-1e300}`, "out of range"},
		{`{"iss":"me","aud":"a","exp":1800000001,"nbf":"x"}`, `claim "nbf" is missing or not a number`},
		{`{"aud":"a","exp":1800000001}`, `unexpected issuer ""`},
		{`{"iss":"ME","aud":"a","exp":1800000001}`, `unexpected issuer "ME"`},
		{`{"iss":"me","exp":1800000001}`, "unexpected audience"},
		{`{"iss":"me","aud":"","exp":1800000001}`, "unexpected audience"},
		{`{"iss":"me","aud":["c"],"exp":1800000001}`, "unexpected audience"},
		{`{"iss":"me","aud":{"a":1},"exp":1800000001}`, "unexpected audience"},
		{`{"iss":"me","aud":"a","exp":1800000001,"sub":"a\u0000"}`, "control characters"},
		{`{"iss":"me","aud":"a","exp":1800000001}{}`, "unexpected data after the claims"},
		{`null`, "not a JSON object"},
		{`[]`, "not a JSON object"},
		{`"x"`, "not a JSON object"},
		{``, "not a JSON object"},
		{strings.Repeat(`{"a":`, 20000), "not a JSON object"},
	} {
		v, err := rules.validate([]byte(tc.payload), now)
		if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%.80s: got %v, %v, want %q", tc.payload, v, err, tc.fails)
		}
	}
}

func TestIdentityOfClaims(t *testing.T) {
	for _, tc := range []struct {
		claims, user, scopes, roles string
		rules                       tokenRules
	}{
		{`{"sub":"a","scope":"x y","roles":["r"]}`, "a", "x,y", "r", tokenRules{}},
		{`{"sub":7,"scp":["x","y z","","q\"q","y"],"roles":"r s"}`, "7", "x,y", "r s", tokenRules{}},
		{`{"sub":true,"scp":"x y","roles":{"r":1}}`, "", "x,y", "", tokenRules{}},
		{`{"sub":"a","roles":"Read Only Admin"}`, "a", "", "Read Only Admin", tokenRules{}},
		{`{"sub":"a","roles":" r  s "}`, "a", "", "r,s", tokenRules{rolesSeparator: " "}},
		{`{"sub":"a","roles":"r; Site Owner ;;s"}`, "a", "", "r,Site Owner,s", tokenRules{rolesSeparator: ";"}},
		{`{"sub":"a","roles":["r;s","t"]}`, "a", "", "r;s,t", tokenRules{rolesSeparator: ";"}},
		{`{"scope":"","scp":"y"}`, "", "", "", tokenRules{}},
		{`{"scope":null,"roles":null}`, "", "", "", tokenRules{}},
		{`{"https://x.example/user":"a","b":{"c":"d e"},"b.r":["f"]}`, "a", "d,e", "f",
			tokenRules{userClaim: "https://x.example/user", scopeClaim: "b.c", rolesClaim: "b.r"}},
		{`{"a":{"b.c":{"d":"e"}},"scope":"x"}`, "e", "", "", tokenRules{userClaim: "a.b.c.d", scopeClaim: "none", rolesClaim: "a.b.c.d.e"}},
		{`{"sub":"Zoë"}`, "Zoë", "", "", tokenRules{}},
	} {
		rules := tc.rules
		if rules.userClaim == "" {
			rules.userClaim, rules.rolesClaim = "sub", "roles"
		}
		claims, err := parseClaims([]byte(tc.claims))
		if err != nil {
			t.Fatal(err)
		}
		who := identity.Identity{Claims: claims}
		if err := rules.identity(&who); err != nil {
			t.Errorf("%s: %v", tc.claims, err)
		}
		if who.User != tc.user || strings.Join(who.Scopes, ",") != tc.scopes || strings.Join(who.Roles, ",") != tc.roles {
			t.Errorf("%s: got %q, %q, %q", tc.claims, who.User, who.Scopes, who.Roles)
		}
	}
}

// FuzzToken searches for tokens that are accepted without the key or cause a panic.
func FuzzToken(f *testing.F) {
	good := jwtByHand(`{"alg":"HS256","typ":"JWT"}`, `{"sub":"alice","exp":4000000000}`, []byte(jwtSecret)) // deterministic across processes
	f.Add(good)
	f.Add("..")
	f.Add("e30.e30.")
	f.Add(strings.Replace(good, "eyJ", "eyK", 1))
	f.Add(jwtByHand(`{"alg":"none"}`, `{"exp":4000000000}`, nil))
	f.Add(jwtByHand(`{"alg":"RS256","kid":"a","jwk":{"kty":"EC"},"x5c":["MIIB"]}`, `{"exp":1e9}`, nil))
	f.Add(jwtByHand(`{"alg":"HS256","crit":["b64"],"b64":false}`, `{"exp":4000000000}`, nil))
	secret := secretKeys(jwtSecret)
	public, _, err := parseJWKS([]byte(jwtSet(f, jwtJWK(f, jwtRSA().Public(), nil), jwtJWK(f, jwtEC().Public(), nil), jwtJWK(f, jwtEd().Public(), nil))))
	if err != nil {
		f.Fatal(err)
	}
	rules := &tokenRules{algorithms: signingAlgorithms, userClaim: "sub", rolesClaim: "roles"}
	parts := strings.Split(good, ".")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := rules.parse(text)
		if err != nil {
			return
		}
		if _, err := public.verify(token); err == nil {
			t.Errorf("%q is signed with an unknown key", text)
		}
		payload, err := secret.verify(token)
		if err != nil {
			return
		}
		// Without the key, only the bits that Base64 ignores can differ.
		if got := strings.Split(text, "."); got[0][:len(got[0])-1] != parts[0][:len(parts[0])-1] || string(payload) != jwtPayload(t, parts[1]) {
			t.Errorf("%q is not signed", text)
		}
	})
}

func jwtPayload(t *testing.T, part string) string {
	t.Helper()
	token, err := jwt.NewParser().DecodeSegment(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// FuzzClaims searches for claims that cause a panic, or that change the user name in a
// header field.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"a","exp":1800000001,"scope":"x y","roles":["r"],"aud":["a"]}`))
	f.Add([]byte(`{"sub":"a\r\nb","exp":1e18,"scp":[1,"\u0000"]}`))
	f.Add([]byte(`{"sub":{"sub":7},"exp":-1}`))
	rules := &tokenRules{userClaim: "sub", rolesClaim: "roles"}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, err := rules.validate(payload, now)
		if err != nil {
			return
		}
		if !json.Valid(payload) || v.expires <= now.UnixMilli() || v.notBefore > now.UnixMilli() {
			t.Errorf("%q is taken for good: %+v", payload, v)
		}
		if !identity.IsHeaderText(v.who.User) || slices.ContainsFunc(v.who.Scopes, func(scope string) bool { return len(strings.Fields(scope)) != 1 }) {
			t.Errorf("%q: %+v", payload, v.who)
		}
	})
}
