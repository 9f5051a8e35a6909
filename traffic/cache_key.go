package traffic

import (
	"encoding/binary"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// keyOf is what a request's answer is stored under. Besides the URL that the client asked
// for, it has all that decides where the request goes: what handlers have made of the URL,
// the port that it came to, the policy's position, the route, the backend. A client can
// say anything in Host, and must not be able to put the answer of one site into the place
// of another's.
func (p *Cache) keyOf(key httpcache.Key, r *http.Request, site *cacheSite) httpcache.Key {
	asked := policy.TargetOf(r)
	key = httpcache.AppendKey(key, policy.SchemeOf(r), asked.Host, asked.Path, asked.Query)
	key = appendRewritten(key, r, &asked)
	key = append(key, site.scope...)
	key = policy.AppendForwarded(key, r)
	key = appendPort(key, r)
	for i := range p.parts {
		key = appendText(key, p.parts[i].Of(r))
	}
	return key
}

var placeholder = regexp.MustCompile(`\{[^{}]+\}`)

// partsOf are the placeholders of a key, each for itself: of two next to each other,
// what belongs to the first must not be taken for a part of the second.
func partsOf(key string) (parts []policy.Key) {
	for _, part := range placeholder.FindAllString(key, -1) {
		parts = append(parts, policy.ParseKey(part))
	}
	return parts
}

// credentialsIn are those that a key tells apart; byUser is whether it tells apart
// users whom other handlers have found out.
func credentialsIn(key string) (keyed httpcache.Credentials, byUser bool) {
	key = strings.ToLower(key)
	for placeholder, credentials := range map[string]httpcache.Credentials{
		"{http.request.cookie.":               httpcache.Cookies,
		"{http.request.header.cookie}":        httpcache.Cookies,
		"{http.request.header.authorization}": httpcache.Authorization,
		"{http.auth.user.consumer}":           httpcache.Consumer,
		"{http.request.tls.client.":           httpcache.Certificate,
	} {
		if strings.Contains(key, placeholder) {
			keyed |= credentials
		}
	}
	return keyed, strings.Contains(key, "{http.auth.user.id}")
}

// unkeyed are the credentials of a request that its key says nothing about.
func (p *Cache) unkeyed(r *http.Request, credentials httpcache.Credentials) httpcache.Credentials {
	credentials &^= p.keyed
	if p.keyedByUser && credentials.Identified() {
		repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if repl == nil {
			return credentials
		}
		if user, _ := repl.GetString("http.auth.user.id"); user != "" {
			credentials &= httpcache.Cookies
		}
	}
	return credentials
}

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
