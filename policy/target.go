package policy

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Target is what a client asked for, whatever handlers have made of the request.
type Target struct {
	Method string
	Host   string
	Path   string // in the bytes of the client
	Query  string
}

// hostKeeper is a RequestState that knows the host that a client asked for.
type hostKeeper interface{ ClientHost() string }

// TargetOf returns what the client of a request asked for.
func TargetOf(r *http.Request) Target {
	t := Target{Method: r.Method, Host: r.Host}
	url, uri := r.URL, r.RequestURI
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		t.Method, url, uri = original.Method, original.URL, original.RequestURI
	}
	if keeper, ok := RequestStateOf(r).(hostKeeper); ok {
		t.Host = keeper.ClientHost()
	}
	t.Query = url.RawQuery
	if path, _, _ := strings.Cut(uri, "?"); strings.HasPrefix(path, "/") {
		t.Path = path
	} else {
		t.Path = url.EscapedPath()
	}
	return t
}
