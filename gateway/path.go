package gateway

import (
	"net/http"
	"net/url"
	"strings"
)

// stripPrefix takes the first bytes off the request's decoded path, as the backend
// sees it. The encoding of what remains stays as the client wrote it.
func stripPrefix(r *http.Request, length int) {
	length = min(length, len(r.URL.Path)) // a handler may have rewritten the path
	u := *r.URL
	if u.RawPath != "" {
		u.RawPath = dropEncoded(u.RawPath, length)
		if len(u.RawPath) >= 3 && strings.EqualFold(u.RawPath[:3], "%2F") {
			u.RawPath = u.RawPath[3:] // it is the slash that a path begins with
		}
		u.RawPath = withSlash(u.RawPath)
	}
	u.Path = withSlash(u.Path[length:])
	if r.URL = &u; r.RequestURI != "" {
		r.RequestURI = u.RequestURI()
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

// keepPathBytes makes sure that the backend receives the path with the bytes that
// the client sent. A URL remembers its encoded form only where that is a valid one,
// and some clients send characters that should have been encoded and were not.
func keepPathBytes(r *http.Request) {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if len(raw) < 2 || raw[0] != '/' || raw[1] == '/' || raw == r.URL.EscapedPath() {
		return
	}
	if path, err := url.PathUnescape(raw); err != nil || path != r.URL.Path {
		return // a handler has rewritten the path
	}
	u := *r.URL
	u.Opaque = raw
	r.URL = &u
}
