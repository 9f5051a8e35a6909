package routing

import (
	"net/http"
	"net/url"
	"strings"
)

// StripPrefix takes the first bytes off the request's decoded path, as the backend
// sees it. The encoding of what remains stays as the client wrote it.
func StripPrefix(r *http.Request, length int) {
	length = min(length, len(r.URL.Path)) // a handler may have rewritten the path
	raw, ok := sentPath(r)
	if !ok {
		raw = r.URL.EscapedPath()
	}
	raw = dropEncoded(raw, length)
	if len(raw) >= 3 && strings.EqualFold(raw[:3], "%2F") {
		raw = raw[3:] // it is the slash that a path begins with
	}
	raw = withSlash(raw)

	u := *r.URL
	u.Path = withSlash(u.Path[length:])
	if u.RawPath != "" {
		u.RawPath = raw
	}
	if r.URL = &u; r.RequestURI != "" {
		r.RequestURI = raw
		if u.RawQuery != "" || u.ForceQuery {
			r.RequestURI += "?" + u.RawQuery
		}
	}
}

func withSlash(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

// dropEncoded drops the beginning of an encoded path that stands for n bytes.
func dropEncoded(raw string, n int) string {
	for ; n > 0 && raw != ""; n-- {
		if raw[0] == '%' && len(raw) >= 3 {
			raw = raw[3:]
		} else {
			raw = raw[1:]
		}
	}
	return raw
}

// sentPath returns the path of a request's target with the bytes that the client sent,
// unless a handler has rewritten it.
func sentPath(r *http.Request) (raw string, ok bool) {
	raw, _, _ = strings.Cut(r.RequestURI, "?")
	if raw != "" && raw[0] != '/' { // RFC 9112, section 3.2.2
		_, rest, _ := strings.Cut(raw, "://")
		_, raw, ok = strings.Cut(rest, "/")
		if raw = "/" + raw; !ok {
			return raw, r.URL.Path == raw
		}
	}
	path, err := url.PathUnescape(raw)
	return raw, err == nil && path == r.URL.Path
}

// KeepPathBytes makes sure that the backend receives the path with the bytes that
// the client sent. A URL remembers its encoded form only where that is a valid one,
// and some clients send characters that should have been encoded and were not.
func KeepPathBytes(r *http.Request) {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if raw == r.URL.EscapedPath() {
		return // as with nearly all requests
	}
	if raw, ok := sentPath(r); ok && len(raw) >= 2 && raw[1] != '/' && raw != r.URL.EscapedPath() {
		u := *r.URL
		u.Opaque = raw
		r.URL = &u
	}
}
