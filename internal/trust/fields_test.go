package trust

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// requestWith returns a request with the given alternating field names and values.
func requestWith(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

func TestStripIdentity(t *testing.T) {
	r := requestWith("X-User-Id", "a", "X-Consumer-Username", "b", "X-Consumer-Foo", "c",
		"X-Gateway-Service", "d", "x_user-id", "e", "X_consumer_Scopes", "f", "X-Users", "kept", "X-Consumers", "kept", "My_Field", "kept")
	StripIdentity(r)
	if len(r.Header) != 3 {
		t.Errorf("what remains is %v", r.Header)
	}
	r.Header.Set(HeaderUserID, "set by the gateway")
	if StripIdentity(r); r.Header.Get(HeaderUserID) == "" {
		t.Error("a second call took what the gateway has set")
	}
	r = requestWith("X-User-Id", "a")
	KeepIdentity(r)
	if StripIdentity(r); r.Header.Get(HeaderUserID) != "a" {
		t.Error("the word of a trusted client was taken away")
	}
}

func BenchmarkStripIdentity(b *testing.B) {
	r := requestWith("Accept", "*/*", "User-Agent", "x", "Accept-Encoding", "gzip", "Cookie", "a=b", "X-Forwarded-For", "::1")
	b.ReportAllocs()
	for b.Loop() {
		caddyhttp.SetVar(r.Context(), strippedVar, nil)
		StripIdentity(r)
	}
}
