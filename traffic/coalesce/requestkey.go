package coalesce

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// requestKey holds the properties of a request that its response may depend on: the
// request line, the route and the header fields. It excludes ignorable fields, which only
// matter if Vary names them.
type requestKey struct {
	method, host, path, rawPath, query string
	secure                             bool
	route, backend                     string    // the target
	text                               string    // value of the option key
	asked                              [4]string // method, host, path and query of the client's request
	forwarding                         string    // URL parts reported by proxies; empty without these fields
	fields                             []keyField
}

// keyField is a header field. Its values are copied because handlers may change them.
type keyField struct {
	name, value string
	more        []string
}

// of sets the key of a request. It returns false if the response cannot be shared.
func (k *requestKey) of(r *http.Request, s *sharing.Rules) bool {
	q := s.Read(r, false)
	if q.Bypass != "" || q.Identified || q.NoCache || q.NoStore ||
		s.HasOtherCookies(r) {
		return false
	}
	for name, values := range r.Header {
		switch q.Class(name, values) {
		case httpcache.Ignorable:
			continue
		case httpcache.Own:
			if name == "Cache-Control" || name == "Pragma" {
				continue
			}
		case httpcache.Credential:
			if name == "Authorization" || name == "Proxy-Authorization" || name == "Cookie" {
				return false
			}
		case httpcache.Negotiated:
			if name == "Accept" && slices.ContainsFunc(values, func(value string) bool { return strings.Contains(value, "text/event-stream") }) {
				return false
			}
		}
		f := keyField{name: name}
		if len(values) > 0 {
			f.value = values[0]
		}
		if len(values) > 1 {
			f.more = slices.Clone(values[1:])
		}
		k.fields = append(k.fields, f)
	}
	k.method, k.host, k.path, k.rawPath, k.query = r.Method, r.Host, r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	k.secure = r.TLS != nil
	if trust.HasForwarded(r) {
		k.forwarding = string(trust.AppendForwarded(nil, r))
	}
	return true
}

// equal reports whether k equals the key o of a request with the given header.
func (k *requestKey) equal(o *requestKey, header http.Header) bool {
	if len(k.fields) != len(o.fields) || k.path != o.path || k.query != o.query || k.host != o.host || k.rawPath != o.rawPath ||
		k.method != o.method || k.secure != o.secure || k.route != o.route || k.backend != o.backend || k.text != o.text || k.asked != o.asked || k.forwarding != o.forwarding {
		return false
	}
	for i := range k.fields {
		f := &k.fields[i]
		values, ok := header[f.name]
		if !ok || len(values) == 0 && f.value != "" || len(values) > 0 && values[0] != f.value ||
			!slices.Equal(values[min(1, len(values)):], f.more) {
			return false
		}
	}
	return true
}

// reset prepares the key for another request.
func (k *requestKey) reset() {
	clear(k.fields)
	k.fields = k.fields[:0]
	k.method, k.host, k.path, k.rawPath, k.query = "", "", "", "", ""
	k.route, k.backend, k.text, k.forwarding = "", "", "", ""
	k.asked = [4]string{}
}

// plainPath returns a decoded path.
func plainPath(path string) string {
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}
