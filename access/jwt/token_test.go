package jwt

import (
	"net/http"
	"testing"

	"github.com/rgate/rgate/internal/httpx"
)

func TestTokensAreHidden(t *testing.T) {
	for _, tc := range []struct {
		source, target string
		cookies        []string
		header         string
		wantURI        string
		wantCookies    []string
	}{
		{"query:token", "/a%2Fb?token=x", nil, "", "/a%2Fb", nil},
		{"query:token", "/a%2Fb?c=%20&token=x&d=+&e", nil, "", "/a%2Fb?c=%20&d=+&e", nil},
		{"query:to+k n", "/?to%2Bk%20n=x&b=%GG;c", nil, "", "/?b=%GG;c", nil},
		{"cookie:session", "/?session=y", []string{"a=b; session=x;c=d", "session=", "e=f"}, "", "/?session=y", []string{"a=b;c=d", "e=f"}},
		{"cookie:session", "/", []string{"session=x"}, "", "/", nil},
		{"header:x-token", "/?x-token=y", []string{"x-token=z"}, "x", "/?x-token=y", []string{"x-token=z"}},
	} {
		source, ok := httpx.ParseCredentialSource(tc.source)
		if !ok {
			t.Fatalf("%s is not a source", tc.source)
		}
		r, _ := jwtRequest(tc.target)
		for _, line := range tc.cookies {
			r.Header.Add("Cookie", line)
		}
		if tc.header != "" {
			r.Header.Set("X-Token", tc.header)
		}
		if token, err := findToken(r, []httpx.CredentialSource{source}); len(tc.cookies) < 2 && (token != "x" || err != nil) {
			t.Errorf("%s: found %q: %v", tc.source, token, err)
		}
		source.Remove(r)
		if r.RequestURI != tc.wantURI || r.URL.RequestURI() != tc.wantURI {
			t.Errorf("%s: left %s and %s, want %s", tc.source, r.RequestURI, r.URL.RequestURI(), tc.wantURI)
		}
		if got := r.Header["Cookie"]; len(got) != len(tc.wantCookies) || len(got) > 0 && (got[0] != tc.wantCookies[0] || got[len(got)-1] != tc.wantCookies[len(got)-1]) {
			t.Errorf("%s: left the cookies %q, want %q", tc.source, got, tc.wantCookies)
		}
		if got := r.Header.Get("X-Token"); got != "" {
			t.Errorf("%s: left the header %q", tc.source, got)
		}
		if _, err := findToken(r, []httpx.CredentialSource{source}); err != errNoToken {
			t.Errorf("%s: after hiding, %v", tc.source, err)
		}
	}
}

// TestTokenOfTheQueryIsTheSameForAll checks that ambiguous queries are rejected, because
// a backend might read another token than the gateway.
func TestTokenOfTheQueryIsTheSameForAll(t *testing.T) {
	for target, want := range map[string]error{
		"/?token=x&%": nil, "/?a=%zz&token=x&b;c": nil, "/?token=x&a;token=y": errSeveralTokens, "/?token=x;a": errSeveralTokens,
		"/?a;token=x": errSeveralTokens, "/?token=x%": errSeveralTokens, "/?a;b=%": errNoToken,
	} {
		r, _ := jwtRequest(target)
		if token, err := findToken(r, []httpx.CredentialSource{{Kind: httpx.QueryParameter, Name: "token"}}); err != want || err == nil && token != "x" {
			t.Errorf("%s: found %q: %v, want %v", target, token, err, want)
		}
	}
}

func TestTokensAreFoundWithoutGarbage(t *testing.T) {
	r, _ := jwtRequest("/?a=b&c=d", "Authorization", "Bearer abc", "X-Other", "1")
	sources := []httpx.CredentialSource{{Kind: httpx.Header, Name: authorization}, {Kind: httpx.Header, Name: "X-Token"}, {Kind: httpx.Cookie, Name: "session"}, {Kind: httpx.QueryParameter, Name: "token"}}
	if n := testing.AllocsPerRun(100, func() {
		if token, err := findToken(r, sources); token != "abc" || err != nil {
			t.Error(token, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTokenSource(f *testing.F) {
	f.Add("Bearer a", "session=a; session=b", "token=a&%74oken=b")
	f.Add("bearer  a,b", "session=\"a\"", "token&token=%GG;")
	sources := []httpx.CredentialSource{{Kind: httpx.Header, Name: authorization}, {Kind: httpx.Cookie, Name: "session"}, {Kind: httpx.QueryParameter, Name: "token"}}
	f.Fuzz(func(t *testing.T, field, cookie, query string) {
		r, err := http.NewRequest(http.MethodGet, "http://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Authorization"], r.Header["Cookie"] = []string{field}, []string{cookie}
		r.URL.RawQuery = query
		token, err := findToken(r, sources)
		if err != nil {
			return
		}
		for _, source := range sources {
			if found, err := tokenIn(r, &source); err == nil && found == token {
				source.Remove(r)
			}
		}
		if again, err := findToken(r, sources); err != errNoToken {
			t.Errorf("after %q was hidden, there is %q: %v", token, again, err)
		}
	})
}
