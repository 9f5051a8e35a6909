package sharing

import (
	"encoding/binary"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/rgate/rgate/policy"
)

// AppendText appends the length of text and text, so that the encoding is unambiguous.
func AppendText(key []byte, text string) []byte {
	key = binary.AppendUvarint(key, uint64(len(text)))
	return append(key, text...)
}

// AppendRewritten appends the rewritten host, path and query if they differ from the
// client's request.
func AppendRewritten(key []byte, r *http.Request, asked *policy.Target) []byte {
	path := sentPath(r)
	if path == asked.Path && r.URL.RawQuery == asked.Query && r.Host == asked.Host {
		return append(key, 0)
	}
	key = append(key, 1)
	for _, part := range [...]string{r.Host, path, r.URL.RawQuery} {
		key = AppendText(key, part)
	}
	return key
}

// AppendPort appends the port, or another local address, at which the request arrived.
func AppendPort(key []byte, r *http.Request) []byte {
	switch address := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.TCPAddr:
		return binary.AppendUvarint(key, uint64(address.Port))
	case *net.UDPAddr:
		return binary.AppendUvarint(key, uint64(address.Port))
	case net.Addr:
		return AppendText(key, address.String())
	}
	return append(key, 0)
}

// sentPath returns the encoded path that is sent to the backend. It keeps the client's
// encoding unless a handler changed the path.
func sentPath(r *http.Request) string {
	path := r.URL.EscapedPath()
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if raw == path || raw == "" || raw[0] != '/' {
		return path
	}
	if plain, err := url.PathUnescape(raw); err == nil && plain == r.URL.Path {
		return raw
	}
	return path
}

// IsRead reports whether the client's original method is GET or HEAD.
func IsRead(asked *policy.Target) bool {
	return asked.Method == http.MethodGet || asked.Method == http.MethodHead
}

// IsSafeMethod reports whether a method is safe (RFC 9110, section 9.2.1) or CONNECT.
func IsSafeMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect, "PROPFIND", "REPORT", "SEARCH", "QUERY":
		return true
	}
	return false
}
