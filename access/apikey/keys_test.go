package apikey

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestKeysAreFoundAndHidden(t *testing.T) {
	everywhere := Options{Header: "X-Api-Key", Query: "api_key", Cookie: "key"}
	authorization := Options{Header: "Authorization"}
	for _, tc := range []struct {
		name    string
		options Options
		target  string
		headers string // one header field per line
		key     string
		rest    string // request target and header fields without the key
	}{
		{"nothing", everywhere, "/?a=b", "Cookie: c=d", "", "/?a=b|Cookie: c=d"},
		{"header", everywhere, "/", "X-Api-Key: secret", "secret", "/"},
		{"header first", everywhere, "/?api_key=two", "X-Api-Key: one\nCookie: key=three", "one", "/"},
		{"query before cookie", everywhere, "/?api_key=two", "Cookie: key=three", "two", "/"},
		{"empty header", everywhere, "/?api_key=two", "X-Api-Key: ", "two", "/"},
		{"several headers", everywhere, "/", "X-Api-Key: one\nX-Api-Key: two", "one", "/"},
		{"the rest of the query", everywhere, "/p?b=%20&api_key=two&a=+;&&api_key=x&c", "", "two", "/p?b=%20&a=+;&&c"},
		{"escaped", everywhere, "/?api%5Fkey=a%2Bb+c", "", "a+b c", "/"},
		{"wrongly escaped", everywhere, "/?api_key=%zz&%zz=1", "", "", "/?api_key=%zz&%zz=1"},
		{"longer names", everywhere, "/?api_key2=1&api_ke=2", "Cookie: key2=3; ke=4", "", "/?api_key2=1&api_ke=2|Cookie: key2=3; ke=4"},
		{"empty parameter", everywhere, "/?api_key=&api_key=two", "", "two", "/"},
		{"the rest of the cookies", everywhere, "/", `Cookie: a="1"; key=three; b=2`, "three", `/|Cookie: a="1"; b=2`},
		{"cookie alone", everywhere, "/", "Cookie: key=three", "three", "/"},
		{"several lines of cookies", everywhere, "/", "Cookie: a=1\nCookie: key=three\nCookie: b=2; key=x", "three", "/|Cookie: a=1|Cookie: b=2"},
		{"Authorization", authorization, "/", "Authorization: ApiKey  secret", "secret", "/"},
		{"Authorization as a bearer", authorization, "/", "Authorization: bearer secret", "secret", "/"},
		{"Authorization of others", authorization, "/", "Authorization: Basic c2VjcmV0", "", "/|Authorization: Basic c2VjcmV0"},
		{"Authorization without a scheme", authorization, "/", "Authorization: secret", "", "/|Authorization: secret"},
		{"a source that is not configured", Options{Query: "api_key"}, "/", "X-Api-Key: secret", "", "/|X-Api-Key: secret"},
	} {
		r := httptest.NewRequest("GET", tc.target, nil)
		for line := range strings.SplitSeq(tc.headers, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				r.Header.Add(name, value)
			}
		}
		sources := tc.options.credentialSources()
		key := presentedKey(r, sources)
		if key != tc.key {
			t.Errorf("%s: got the key %q, want %q", tc.name, key, tc.key)
		}
		if key != "" {
			for i := range sources {
				sources[i].Remove(r)
			}
		}
		rest := r.URL.RequestURI()
		if r.RequestURI != rest {
			t.Errorf("%s: the request's URI is %q and its URL %q", tc.name, r.RequestURI, rest)
		}
		for _, name := range []string{"Authorization", "Cookie", "X-Api-Key"} {
			for _, value := range r.Header[name] {
				rest += "|" + name + ": " + value
			}
		}
		if rest != tc.rest {
			t.Errorf("%s: what is left is %q, want %q", tc.name, rest, tc.rest)
		}
	}
}
