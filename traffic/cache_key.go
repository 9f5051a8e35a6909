package traffic

import (
	"encoding/binary"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// keyOf appends what a request's response is stored under. Besides the URL that the client asked
// for, it has all that decides where the request goes: what handlers have made of the URL,
// the port that it came to, the policy's position, the route, the backend. A client can
// say anything in Host, and must not be able to put the response of one site into the place
// of another's.
func (p *Cache) keyOf(key httpcache.Key, r *http.Request, site *cacheSite, q *httpcache.Request) httpcache.Key {
	asked := policy.TargetOf(r)
	key = httpcache.AppendKey(key, policy.SchemeOf(r), asked.Host, asked.Path, asked.Query)
	key = appendRewritten(key, r, &asked)
	key = append(key, site.scope...)
	key = policy.AppendForwarded(key, r)
	key = appendPort(key, r)
	return p.sharing.appendTo(key, r, q)
}

var placeholder = regexp.MustCompile(`\{[^{}]+\}`)

// appendText appends a text so that it cannot be confused with what follows.
func appendText(key []byte, text string) []byte {
	key = binary.AppendUvarint(key, uint64(len(text)))
	return append(key, text...)
}

// appendPort appends the port, or other address, that the request came to.
func appendPort(key []byte, r *http.Request) []byte {
	switch address := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.TCPAddr:
		return binary.AppendUvarint(key, uint64(address.Port))
	case *net.UDPAddr:
		return binary.AppendUvarint(key, uint64(address.Port))
	case net.Addr:
		return appendText(key, address.String())
	}
	return append(key, 0)
}

// cacheURL is the URL that the client asked for, as the store knows it.
func cacheURL(r *http.Request) string {
	asked := policy.TargetOf(r)
	return string(httpcache.AppendURL(nil, policy.SchemeOf(r), asked.Host, asked.Path, asked.Query))
}

// cachePath is the path of a request in the bytes in which a backend gets it: those that
// the client sent, unless a handler has put another path in their place.
func cachePath(r *http.Request) string {
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
